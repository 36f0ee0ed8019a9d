"""Makes the directories of Hugging Face's formats in tiny/ and their logits.

    python make_directory_reference.py

Each is a random model, saved by transformers' save_pretrained, with the
tokenizer's files beside it, and a .ref file with the logits that transformers
computes in float32 from the directory as it lies there. The quantised ones are
packed here as AutoAWQ, AutoGPTQ and compressed-tensors pack, and their reference
is transformers over the weights that those formats stand for. Scales have few
bits, so that the weights can be held exactly by what Troupe makes of them.
Format of a .ref file: see README.md.
"""

import copy
import json
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from make_model_reference import (
    HERE, LINEAR, LLAMA3, MERGES, SPECIAL, TEMPLATE, byte_alphabet,
    teacher_forced,
)
from reference_format import write_reference

TINY = {
    "llama-bf16": dict(
        dtype=torch.bfloat16,
        config=dict(
            hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=96, num_hidden_layers=2, tie_word_embeddings=True,
        ),
    ),
    "llama-sharded-f16": dict(
        dtype=torch.float16, max_shard_size="60KB",
        config=dict(
            hidden_size=96, num_attention_heads=3, num_key_value_heads=1,
            intermediate_size=64, num_hidden_layers=2,
            tie_word_embeddings=False, rope_parameters=LLAMA3,
        ),
    ),
    "llama-f32-linear": dict(
        dtype=torch.float32,
        config=dict(
            hidden_size=32, num_attention_heads=2, num_key_value_heads=2,
            intermediate_size=64, num_hidden_layers=2, head_dim=24,
            tie_word_embeddings=True, rope_parameters=LINEAR,
        ),
    ),
}


def vocabulary():
    tokens = SPECIAL + byte_alphabet()
    return tokens + [merge.replace(" ", "") for merge in MERGES]


def write_tokenizer(folder):
    tokens = vocabulary()
    added = [
        dict(id=i, content=token, single_word=False, lstrip=False,
             rstrip=False, normalized=False, special=True)
        for i, token in enumerate(SPECIAL)
    ]
    tokenizer = dict(
        version="1.0", truncation=None, padding=None, added_tokens=added,
        normalizer=None,
        pre_tokenizer=dict(
            type="Sequence",
            pretokenizers=[
                dict(type="Digits", individual_digits=True),
                dict(type="ByteLevel", add_prefix_space=False,
                     trim_offsets=True, use_regex=True),
            ],
        ),
        post_processor=None,
        decoder=dict(type="ByteLevel", add_prefix_space=True,
                     trim_offsets=True, use_regex=True),
        model=dict(
            type="BPE", dropout=None, unk_token=None,
            continuing_subword_prefix=None, end_of_word_suffix=None,
            fuse_unk=False, byte_fallback=False, ignore_merges=False,
            vocab={token: i for i, token in enumerate(tokens)},
            merges=MERGES,
        ),
    )
    settings = dict(
        tokenizer_class="PreTrainedTokenizerFast", add_bos_token=False,
        bos_token="<|im_start|>", eos_token="<|endoftext|>",
        unk_token="<|endoftext|>", chat_template=TEMPLATE,
    )
    generation = dict(
        bos_token_id=1, eos_token_id=[0, 2], do_sample=True, temperature=0.6,
        top_k=20, top_p=0.95, transformers_version="5.0.0",
    )
    for name, content in [("tokenizer.json", tokenizer),
                          ("tokenizer_config.json", settings),
                          ("generation_config.json", generation)]:
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def randomise(model, random):
    """Weights that make decided logits; norms near one."""
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        values = random.standard_normal(shape)
        if parameter.dim() == 1:
            values = 1 + 0.2 * values
        else:
            scale = 1.0 if "v_proj" in name or "o_proj" in name else 2.0
            values *= scale / np.sqrt(shape[-1])
        parameter.copy_(torch.tensor(values.astype(np.float32)))


def write_logits(folder, model, random):
    model.eval().set_attn_implementation("eager")
    size = model.config.vocab_size
    ids = random.integers(0, size, 40).tolist()
    logits = teacher_forced(model, ids)
    write_reference(folder.with_suffix(".ref"), size, size,
                    [(len(ids), ids, logits)])
    print(folder.name, "logits", logits.std(), np.abs(logits).max())


# --- quantised modules: [out][in] weights to tensors, and what they stand for


def few_bits(scales):
    """Scales rounded to six bits."""
    mantissa, exponent = np.frexp(scales)
    return np.ldexp(np.round(mantissa * 64) / 64, exponent)


def pack_words(values, order):
    """Eight nibbles of the last axis to a word; nibble i is value order[i]."""
    parts = values.reshape(*values.shape[:-1], -1, 8).astype(np.uint32)
    words = np.zeros(parts.shape[:-1], np.uint32)
    for nibble, place in enumerate(order):
        words |= parts[..., place] << np.uint32(4 * nibble)
    return torch.tensor(words.view(np.int32))


def four_bits(weights, group, zeros):
    """[in][out] values of 0 to 15, and [groups][out] scales and zeros."""
    grouped = weights.T.reshape(-1, group, weights.shape[0])
    low, high = grouped.min(1), grouped.max(1)
    if zeros is None:
        scales = few_bits((high - low) / 15)
        zeros = np.clip(np.round(-low / scales), 0, 15)
    else:
        scales = few_bits(np.maximum(-low / zeros, high / (15 - zeros)))
        zeros = np.full_like(scales, zeros)
    values = np.round(grouped / scales[:, None]) + zeros[:, None]
    values = np.clip(values, 0, 15)
    meant = (values - zeros[:, None]) * scales[:, None]
    flat = [part.reshape(-1, weights.shape[0]) for part in (values, meant)]
    return flat[0].astype(np.uint8), scales, zeros.astype(np.uint8), flat[1].T


AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
PLAIN_ORDER = list(range(8))


def awq(weights, group):
    values, scales, zeros, meant = four_bits(weights, group, None)
    return meant, dict(
        qweight=pack_words(values, AWQ_ORDER),
        qzeros=pack_words(zeros, AWQ_ORDER),
        scales=torch.tensor(scales.astype(np.float16)),
    )


def gptq(weights, group, zero):
    values, scales, zeros, meant = four_bits(weights, group, zero)
    inputs = values.shape[0]
    return meant, dict(
        qweight=pack_words(values.T, PLAIN_ORDER).T.contiguous(),
        qzeros=pack_words(zeros - 1, PLAIN_ORDER),
        scales=torch.tensor(scales.astype(np.float16)),
        g_idx=torch.tensor(np.arange(inputs) // group, dtype=torch.int32),
    )


def int8(weights):
    scales = few_bits(np.abs(weights).max(1, keepdims=True) / 127)
    values = np.clip(np.round(weights / scales), -128, 127)
    return values * scales, dict(
        weight=torch.tensor(values.astype(np.int8)),
        weight_scale=torch.tensor(scales.astype(np.float32)).bfloat16(),
    )


def fp8(weights, block):
    """One scale for all, or one per square of `block`."""
    rows, columns = weights.shape
    side = block or max(rows, columns)
    scales = np.empty((-(-rows // side), -(-columns // side)))
    for (i, j), _ in np.ndenumerate(scales):
        part = weights[i * side:(i + 1) * side, j * side:(j + 1) * side]
        scales[i, j] = few_bits(np.abs(part).max() / 448)
    spread = scales.repeat(side, 0).repeat(side, 1)[:rows, :columns]
    values = torch.tensor(weights / spread).to(torch.float8_e4m3fn)
    name = "weight_scale_inv" if block else "weight_scale"
    kept = torch.tensor(scales.astype(np.float32))
    return values.double().numpy() * spread, {
        "weight": values, name: kept if block else kept.reshape(1),
    }


def compressed(format, weights):
    group = dict(targets=["Linear"], output_activations=None, weights=weights,
                 input_activations=dict(num_bits=8, dynamic=True,
                                        strategy="token", symmetric=True,
                                        type=weights["type"]))
    return dict(quant_method="compressed-tensors", format=format,
                config_groups=dict(group_0=group), ignore=["lm_head"],
                kv_cache_scheme=None, quantization_status="compressed")


PACKED = {
    "llama-awq": dict(
        pack=lambda w: awq(w, 32), dtype=torch.float16,
        quantization=dict(quant_method="awq", bits=4, group_size=32,
                          zero_point=True, version="gemm",
                          modules_to_not_convert=None),
    ),
    "llama-gptq": dict(
        pack=lambda w: gptq(w, 64, 8), dtype=torch.float16,
        quantization=dict(quant_method="gptq", bits=4, group_size=64, sym=True,
                          desc_act=False, damp_percent=0.01, lm_head=False,
                          checkpoint_format="gptq"),
    ),
    "llama-int8": dict(
        pack=int8, dtype=torch.bfloat16,
        quantization=compressed("int-quantized", dict(
            num_bits=8, type="int", symmetric=True, strategy="channel",
            dynamic=False, group_size=None)),
    ),
    "llama-fp8": dict(
        pack=lambda w: fp8(w, None), dtype=torch.bfloat16,
        quantization=compressed("float-quantized", dict(
            num_bits=8, type="float", symmetric=True, strategy="tensor",
            dynamic=False, group_size=None)),
    ),
    "llama-fp8-blocks": dict(
        pack=lambda w: fp8(w, 48), dtype=torch.bfloat16,
        quantization=dict(quant_method="fp8", fmt="e4m3",
                          activation_scheme="dynamic",
                          weight_block_size=[48, 48]),
    ),
}
PACKED_CONFIG = dict(
    hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=128, num_hidden_layers=2, tie_word_embeddings=True,
)


def make_packed(name, spec, random):
    """A model as always, then its linear layers packed in the file, and put
    into the model with what they stand for."""
    config = LlamaConfig(
        vocab_size=len(vocabulary()), max_position_embeddings=256,
        rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=0, **PACKED_CONFIG
    )
    model = LlamaForCausalLM(config).float()
    randomise(model, random)
    folder = save(copy.deepcopy(model).to(spec["dtype"]), name)
    tensors = load_file(folder / "model.safetensors")
    for parameter in model.parameters():  # rope's frequencies stay as they are
        parameter.data = parameter.data.to(spec["dtype"]).float()
    for module, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear) or module == "lm_head":
            continue
        weights = layer.weight.detach().double().numpy()
        meant, parts = spec["pack"](weights)
        layer.weight.data = torch.tensor(meant.astype(np.float32))
        del tensors[module + ".weight"]
        tensors |= {f"{module}.{part}": t.contiguous()
                    for part, t in parts.items()}
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = spec["quantization"]
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    write_logits(folder, model, random)


def save(model, name, **options):
    folder = HERE / "tiny" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **options)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes them for the owner alone
    write_tokenizer(folder)
    return folder


def make_tiny(name, spec, random):
    config = LlamaConfig(
        vocab_size=len(vocabulary()), max_position_embeddings=256,
        rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=0, **spec["config"]
    )
    model = LlamaForCausalLM(config)
    randomise(model, random)
    folder = save(model.to(spec["dtype"]), name,
                  max_shard_size=spec.get("max_shard_size", "5GB"))
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    write_logits(folder, loaded, random)


if __name__ == "__main__":
    for seed, (name, spec) in enumerate(TINY.items()):
        make_tiny(name, spec, np.random.default_rng(2000 + seed))
    for seed, (name, spec) in enumerate(PACKED.items()):
        make_packed(name, spec, np.random.default_rng(3000 + seed))
