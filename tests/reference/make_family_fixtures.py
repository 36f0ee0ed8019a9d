"""Makes the fixtures of model families with PyTorch and transformers.

    python make_family_fixtures.py [FAMILY ...]

For each family of FAMILIES a tiny random model, written three times into
families/: FAMILY/ is what transformers' own save_pretrained makes of it (BF16),
FAMILY.gguf the same weights under the names and in the layout that GGUF files
of the family have, and FAMILY.ref the logits of transformers' own class in
float32, for a prompt continued greedily and another one. The prompts are longer
than the windows. Format of a .ref file and how it is compared: see README.md.
"""

import math
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

from make_model_reference import write_reference

HERE = Path(__file__).resolve().parent / "families"
VOCABULARY = 256
TOP_K = 64
SEQUENCES = [(40, 24), (20, 8)]  # prompt, greedy continuation

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
LONGROPE = dict(
    rope_type="longrope", rope_theta=10000.0,
    original_max_position_embeddings=32, partial_rotary_factor=0.75,
    short_factor=[1.0 + 0.02 * i for i in range(12)],
    long_factor=[1.0 + 0.6 * i for i in range(12)],
)
GEMMA3_ROPE = dict(
    full_attention=dict(rope_type="linear", rope_theta=100000.0, factor=8.0),
    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
)


class Family:
    """How a family is made and what GGUF calls its parts."""

    def __init__(self, class_name, arch, options, *, keys=(), names=(),
                 permuted=False, norm_shift=0.0, made=lambda config: [],
                 seed=2000):
        self.class_name = class_name
        self.arch = arch
        self.options = {**COMMON, **options}
        self.keys = keys  # metadata beside the common: functions of a writer
        self.names = {**NAMES, **dict(names)}
        self.permuted = permuted  # q and k in neighbouring rope pairs
        self.norm_shift = norm_shift
        self.made = made  # tensors that GGUF has beside transformers'
        self.seed = seed


NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS_OF_Q_K = {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
NORMS_AFTER = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}


def llama3_factors(config):
    """What each pair's wavelength is stretched by, as rope_freqs.weight."""
    rope = config.rope_parameters
    dims = config.hidden_size // config.num_attention_heads
    wavelength = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(wavelength > context / low, rope["factor"], between)
    factors = np.where(wavelength < context / high, 1.0, factors)
    return [("rope_freqs.weight", factors.astype(np.float32))]


def longrope_factors(config):
    rope = config.rope_parameters
    return [
        ("rope_factors_long.weight", np.float32(rope["long_factor"])),
        ("rope_factors_short.weight", np.float32(rope["short_factor"])),
    ]


def window(size):
    return lambda writer: writer.add_sliding_window(size)


def yarn(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(YARN["factor"])
    writer.add_rope_scaling_orig_ctx_len(32)


def longrope(writer):
    grown = math.log(COMMON["max_position_embeddings"] / 32)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + grown / math.log(32)))
    writer.add_rope_dimension_count(24)


def gemma2_caps(writer):
    writer.add_attn_logit_softcapping(5.0)
    writer.add_final_logit_softcapping(6.0)


def linear(factor):
    def add(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(factor)
    return add


def granite_scales(writer):
    writer.add_attention_scale(0.15)
    writer.add_embedding_scale(6.0)
    writer.add_residual_scale(0.22)
    writer.add_logit_scale(3.0)


def experts(writer):
    writer.add_expert_count(8)
    writer.add_expert_used_count(3)
    writer.add_expert_feed_forward_length(32)


FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM", "llama", dict(rope_parameters=LLAMA3),
        permuted=True, made=llama3_factors,
    ),
    "mistral": Family(
        "MistralForCausalLM", "llama", dict(sliding_window=16, head_dim=32),
        keys=[window(16)], permuted=True,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", "qwen2",
        dict(rope_parameters=YARN, tie_word_embeddings=True), keys=[yarn],
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", "qwen3",
        dict(head_dim=32, hidden_size=48, num_key_value_heads=1),
        names=NORMS_OF_Q_K,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM", "gemma2",
        dict(head_dim=32, sliding_window=16, num_hidden_layers=4,
             query_pre_attn_scalar=32, attn_logit_softcapping=5.0,
             final_logit_softcapping=6.0),
        keys=[window(16), gemma2_caps], names=NORMS_AFTER, norm_shift=1.0,
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM", "gemma3",
        dict(head_dim=16, sliding_window=12, num_hidden_layers=7,
             query_pre_attn_scalar=16, hidden_size=48,
             rope_parameters=GEMMA3_ROPE, num_attention_heads=2,
             num_key_value_heads=1),
        keys=[window(12), linear(8.0)], names={**NORMS_OF_Q_K, **NORMS_AFTER},
        norm_shift=1.0,
    ),
    "phi3": Family(
        "Phi3ForCausalLM", "phi3",
        dict(num_attention_heads=2, num_key_value_heads=1, sliding_window=18,
             rope_parameters=LONGROPE, original_max_position_embeddings=32),
        keys=[window(18), longrope],
        names={"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
        made=longrope_factors,
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM", "smollm3",
        dict(num_hidden_layers=4, hidden_size=48, num_attention_heads=3,
             num_key_value_heads=1), permuted=True,
    ),
    "granite": Family(
        "GraniteForCausalLM", "granite",
        dict(attention_multiplier=0.15, embedding_multiplier=6.0,
             residual_multiplier=0.22, logits_scaling=3.0,
             tie_word_embeddings=True),
        keys=[granite_scales], permuted=True,
    ),
    "qwen3moe": Family(
        "Qwen3MoeForCausalLM", "qwen3moe",
        dict(head_dim=16, num_experts=8, num_experts_per_tok=3,
             moe_intermediate_size=32, norm_topk_prob=True, hidden_size=48,
             num_attention_heads=3, num_key_value_heads=1),
        keys=[experts], names={**NORMS_OF_Q_K, **EXPERTS},
        # No choice of an expert hangs on the rounding of keys and values.
        seed=2030,
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM", "olmo2", {}, names={**NORMS_OF_Q_K, **NORMS_AFTER},
    ),
}


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


def make(name, family):
    random = np.random.default_rng(family.seed)
    config_class = getattr(transformers, family.class_name).config_class
    config = config_class(**family.options)
    config.dtype = "bfloat16"
    model = getattr(transformers, family.class_name)(config)
    model.generation_config = transformers.GenerationConfig()
    randomise(model, family, random)
    model.to(torch.bfloat16).save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    model = getattr(transformers, family.class_name).from_pretrained(
        HERE / name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    scale_as_trained(model)
    write_gguf(HERE / f"{name}.gguf", family, model)
    sequences = []
    for prompt, more in SEQUENCES:
        ids = random.integers(3, VOCABULARY, prompt).tolist()
        for _ in range(more):
            ids.append(int(logits_of(model, ids)[-1].argmax()))
        sequences.append((prompt, ids, logits_of(model, ids)))
    write_reference(HERE / f"{name}.ref", VOCABULARY, TOP_K, sequences)
    logits = sequences[0][2]
    margins = np.sort(logits, axis=1)
    print(name, "logits", logits.std(), np.abs(logits).max(), "least margin",
          (margins[:, -1] - margins[:, -2]).min(), "different choices",
          len(set(sequences[0][1][SEQUENCES[0][0]:])), "router margin",
          min(router_margin(model, ids) for _, ids, _ in sequences))


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


# --- GGUF -----------------------------------------------------------------


def write_gguf(path, family, model):
    config = model.config
    writer = gguf.GGUFWriter(path, family.arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(VOCABULARY)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    for key in family.keys:
        key(writer)
    for name, values in gguf_tensors(family, model):
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            data = gguf.quants.quantize(values.astype(np.float32), Type.BF16)
            writer.add_tensor(name, data, raw_dtype=Type.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(family, model):
    for name, values in split_experts(model):
        module, part = name.rsplit(".", 1)
        if module.endswith("norm"):
            values = values + family.norm_shift
        if family.permuted and module.endswith(("q_proj", "k_proj")):
            heads = (model.config.num_attention_heads
                     if module.endswith("q_proj")
                     else model.config.num_key_value_heads)
            values = permute(values, heads)
        yield f"{gguf_module(family, module)}.{part}", values
    yield from family.made(model.config)


def split_experts(model):
    """The parameters; experts as three stacks. The tied output is left out."""
    tied = model.config.tie_word_embeddings
    for name, value in model.state_dict().items():
        values = value.float().numpy()
        if name.endswith("experts.gate_up_proj"):
            gate, up = np.split(values, 2, axis=1)
            yield name.replace("gate_up_proj", "gate_proj.weight"), gate
            yield name.replace("gate_up_proj", "up_proj.weight"), up
        elif name.endswith("experts.down_proj"):
            yield name + ".weight", values
        elif not (tied and name == "lm_head.weight"):
            yield name, values


def permute(values, heads):
    """transformers' split halves to GGUF's neighbouring rope pairs."""
    shape = values.shape
    halves = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def gguf_module(family, module):
    whole = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    }
    if module in whole:
        return whole[module]
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{family.names[part]}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for title, row in FAMILIES.items():
        if not sys.argv[1:] or title in sys.argv[1:]:
            make(title, row)
