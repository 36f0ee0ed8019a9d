"""Random models of the families, as transformers makes and computes them.

Needs PyTorch and transformers alone, so that it runs where a GPU is. Used by
make_family_fixtures.py and make_random_families.py.
"""

import math
import sys

import numpy as np
import torch
import transformers

VOCABULARY = 256
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
    high_freq_factor=4.0, original_max_position_embeddings=32,
)
YARN = dict(
    rope_type="yarn", rope_theta=10000.0, factor=4.0,
    original_max_position_embeddings=32,
)


def longrope(pairs):
    return dict(
        rope_type="longrope", rope_theta=10000.0,
        original_max_position_embeddings=32, partial_rotary_factor=0.75,
        short_factor=[1.0 + 0.02 * i for i in range(pairs)],
        long_factor=[1.0 + 0.6 * i for i in range(pairs)],
    )


GEMMA3_ROPE = dict(
    full_attention=dict(rope_type="linear", rope_theta=100000.0, factor=8.0),
    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
)
transformers.utils.logging.disable_progress_bar()


class Family:
    def __init__(self, class_name, options, *, norm_shift=0.0, seed=2000):
        self.class_name = class_name
        self.options = {**COMMON, **options}
        self.norm_shift = norm_shift  # a norm of w multiplies by w + this
        self.seed = seed  # of the fixture

    @property
    def model_class(self):
        return getattr(transformers, self.class_name)


FAMILIES = {
    "llama": Family("LlamaForCausalLM", dict(rope_parameters=LLAMA3)),
    "mistral": Family(
        "MistralForCausalLM", dict(sliding_window=16, head_dim=32)
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        dict(rope_parameters=YARN, tie_word_embeddings=True),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        dict(head_dim=32, hidden_size=48, num_key_value_heads=1),
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        dict(head_dim=32, sliding_window=16, num_hidden_layers=4,
             query_pre_attn_scalar=32, attn_logit_softcapping=5.0,
             final_logit_softcapping=6.0),
        norm_shift=1.0,
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        dict(head_dim=16, sliding_window=12, num_hidden_layers=7,
             query_pre_attn_scalar=16, hidden_size=48,
             rope_parameters=GEMMA3_ROPE, num_attention_heads=2,
             num_key_value_heads=1),
        norm_shift=1.0,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        dict(num_attention_heads=2, num_key_value_heads=1, sliding_window=18,
             rope_parameters=longrope(12), original_max_position_embeddings=32),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        dict(num_hidden_layers=4, hidden_size=48, num_attention_heads=3,
             num_key_value_heads=1),
    ),
    "granite": Family(
        "GraniteForCausalLM",
        dict(attention_multiplier=0.15, embedding_multiplier=6.0,
             residual_multiplier=0.22, logits_scaling=3.0,
             tie_word_embeddings=True),
    ),
    "qwen3moe": Family(
        "Qwen3MoeForCausalLM",
        dict(head_dim=16, num_experts=8, num_experts_per_tok=3,
             moe_intermediate_size=32, norm_topk_prob=True, hidden_size=48,
             num_attention_heads=3, num_key_value_heads=1),
        # No choice of an expert hangs on the rounding of keys and values.
        seed=2030,
    ),
    "olmo2": Family("Olmo2ForCausalLM", {}),
}


def save_random(folder, family, random, dtype, options=None):
    """Writes a model of the family as save_pretrained does; gives it back in
    float32 with the weights that it was stored with."""
    config = family.model_class.config_class(**(options or family.options))
    config.dtype = dtype
    model = family.model_class(config)
    model.generation_config = transformers.GenerationConfig()
    randomise(model, family, random)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = family.model_class.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager",  # the others want even sizes
    ).eval()
    if dtype == torch.bfloat16:
        scale_as_trained(model)
    return model


def randomise(model, family, random):
    """Weights that make every part of the model matter. Where input and output
    share a table, its entries are small and the last norm is large, or a token
    would always be followed by itself."""
    tied = model.config.tie_word_embeddings
    for name, value in model.named_parameters():
        noise = torch.tensor(random.standard_normal(value.shape))
        if name.endswith("norm.weight"):
            size = 6 if tied and name == "model.norm.weight" else 1
            noise = size * (1 + 0.3 * noise) - family.norm_shift
        elif name.endswith("bias"):
            noise = 0.5 * noise
        elif "embed_tokens" in name or "lm_head" in name:
            size = 0.3 if tied else 2
            noise = noise * size / math.sqrt(value.shape[-1])
        else:
            noise = noise * 1.5 / math.sqrt(value.shape[-1])
        value.data.copy_(noise)


def to_e4m3(x):
    """The nearest of float8's numbers; what is too large becomes 448."""
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


@torch.no_grad()
def round_weights(model):
    """To e4m3 with a scale per row, but for embeddings, output and routers."""
    for name, value in model.named_parameters():
        if value.dim() < 2 or any(
            part in name for part in ("embed_tokens", "lm_head", "mlp.gate.")
        ):
            continue
        scale = value.abs().amax(-1, keepdim=True) / 448
        value.copy_(to_e4m3(value / scale) * scale)


def round_keys_and_values(model):
    """To e4m3, as they are stored: keys after their turn. Of all models of the
    class in this process."""
    module = sys.modules[type(model).__module__]
    plain = module.eager_attention_forward
    if hasattr(plain, "rounds"):
        return

    def rounded(layer, query, key, value, *args, **options):
        return plain(layer, query, to_e4m3(key), to_e4m3(value), *args,
                     **options)

    rounded.rounds = True
    module.eager_attention_forward = rounded


def scale_as_trained(model):
    """Gemma's scale of the embeddings in the checkpoint's type, BF16: with
    weights in float32 transformers would not round it."""
    table = model.get_input_embeddings()
    if hasattr(table, "embed_scale"):
        table.embed_scale = table.embed_scale.to(torch.bfloat16).float()


def router_margin(model, ids):
    """How far the worst chosen expert is from the best one not chosen."""
    least = [math.inf]
    chosen = getattr(model.config, "num_experts_per_tok", 0)
    if chosen == 0:
        return math.inf

    def watch(module, inputs, output):
        scores = output[0].sort(descending=True).values
        gap = scores[:, chosen - 1] - scores[:, chosen]
        least.append(gap.min().item())

    hooks = [
        layer.mlp.gate.register_forward_hook(watch)
        for layer in model.model.layers if hasattr(layer.mlp, "experts")
    ]
    logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    return min(least)


@torch.no_grad()
def logits_of(model, ids):
    out = model(torch.tensor([ids]), use_cache=False)
    return out.logits[0].numpy().astype(np.float32)


def continue_greedily(model, prompt, more):
    """(prompt length, ids, logits at all positions)."""
    ids = [int(one) for one in prompt]
    for _ in range(more):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return len(prompt), ids, logits_of(model, ids)
