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
from gguf import GGMLQuantizationType as Type

from family_models import (
    COMMON, FAMILIES, VOCABULARY, YARN, continue_greedily, router_margin,
    save_random,
)
from reference_format import write_reference

HERE = Path(__file__).resolve().parent / "families"
TOP_K = 64
SEQUENCES = [(40, 24), (20, 8)]  # prompt, greedy continuation


class Layout:
    """What GGUF calls a family's parts, and what it has beside them."""

    def __init__(self, arch, *, keys=(), names=(), permuted=False,
                 made=lambda config: []):
        self.arch = arch
        self.keys = keys  # metadata beside the common: functions of a writer
        self.names = {**NAMES, **dict(names)}
        self.permuted = permuted  # q and k in neighbouring rope pairs
        self.made = made  # tensors that GGUF has beside transformers'


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


def longrope_keys(writer):
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


LAYOUTS = {
    "llama": Layout("llama", permuted=True, made=llama3_factors),
    "mistral": Layout("llama", keys=[window(16)], permuted=True),
    "qwen2": Layout("qwen2", keys=[yarn]),
    "qwen3": Layout("qwen3", names=NORMS_OF_Q_K),
    "gemma2": Layout(
        "gemma2", keys=[window(16), gemma2_caps], names=NORMS_AFTER,
    ),
    "gemma3": Layout(
        "gemma3", keys=[window(12), linear(8.0)],
        names={**NORMS_OF_Q_K, **NORMS_AFTER},
    ),
    "phi3": Layout(
        "phi3", keys=[window(18), longrope_keys],
        names={"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
        made=longrope_factors,
    ),
    "smollm3": Layout("smollm3", permuted=True),
    "granite": Layout("granite", keys=[granite_scales], permuted=True),
    "qwen3moe": Layout(
        "qwen3moe", keys=[experts], names={**NORMS_OF_Q_K, **EXPERTS},
    ),
    "olmo2": Layout("olmo2", names={**NORMS_OF_Q_K, **NORMS_AFTER}),
}


def make(name, family):
    random = np.random.default_rng(family.seed)
    model = save_random(HERE / name, family, random, torch.bfloat16)
    write_gguf(HERE / f"{name}.gguf", family, LAYOUTS[name], model)
    sequences = [
        continue_greedily(model, random.integers(3, VOCABULARY, prompt), more)
        for prompt, more in SEQUENCES
    ]
    write_reference(HERE / f"{name}.ref", VOCABULARY, TOP_K, sequences)
    logits = sequences[0][2]
    margins = np.sort(logits, axis=1)
    print(name, "logits", logits.std(), np.abs(logits).max(), "least margin",
          (margins[:, -1] - margins[:, -2]).min(), "different choices",
          len(set(sequences[0][1][SEQUENCES[0][0]:])), "router margin",
          min(router_margin(model, ids) for _, ids, _ in sequences))


# --- GGUF -----------------------------------------------------------------


def write_gguf(path, family, layout, model):
    config = model.config
    writer = gguf.GGUFWriter(path, layout.arch)
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
    for key in layout.keys:
        key(writer)
    for name, values in gguf_tensors(family, layout, model):
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            data = gguf.quants.quantize(values.astype(np.float32), Type.BF16)
            writer.add_tensor(name, data, raw_dtype=Type.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(family, layout, model):
    for name, values in split_experts(model):
        module, part = name.rsplit(".", 1)
        if module.endswith("norm"):
            values = values + family.norm_shift
        if layout.permuted and module.endswith(("q_proj", "k_proj")):
            heads = (model.config.num_attention_heads
                     if module.endswith("q_proj")
                     else model.config.num_key_value_heads)
            values = permute(values, heads)
        yield f"{gguf_module(layout, module)}.{part}", values
    yield from layout.made(model.config)


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


def gguf_module(layout, module):
    whole = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    }
    if module in whole:
        return whole[module]
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{layout.names[part]}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for title, row in FAMILIES.items():
        if not sys.argv[1:] or title in sys.argv[1:]:
            make(title, row)
