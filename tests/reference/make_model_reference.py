"""Makes the model fixtures in this folder with PyTorch and transformers.

    python make_model_reference.py tiny
    python make_model_reference.py real path/to/SmolLM2-135M-Instruct.Q4_1.gguf
    python make_model_reference.py int8 path/to/SmolLM2-135M-Instruct.Q4_1.gguf

`tiny` writes random Llama checkpoints (tiny/*.gguf) and their logits
(tiny/*.ref); `real` writes smollm2-135m-instruct.ref. The reference is always
transformers' LlamaForCausalLM in float32 over the dequantised weights of the
GGUF file, so quantisation of the weights is on both sides and what a test
compares is the arithmetic alone. `int8` runs along the sequences of `real` once
more, with the inputs of matrix products rounded to int8 and keys and values to
float16 as the CPU arithmetic says, and prints how far that moves the logits: the
reason for the test's tolerance. Format of a .ref file: see README.md.
"""

import json
import os
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import LlamaConfig, LlamaForCausalLM

from reference_format import write_reference

HERE = Path(__file__).resolve().parent
CONTINUATION_TOKENS = 128
BATCH = 10


# --- GGUF to transformers -------------------------------------------------


def metadata(reader, key, default=None):
    field = reader.get_field(key)
    return default if field is None else field.contents()


def unpermute(weight, heads):
    """GGUF's neighbouring rope pairs back to transformers' split halves."""
    rows, cols = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, cols)
    return pairs.swapaxes(1, 2).reshape(rows, cols)


def permute(weight, heads):
    rows, cols = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, cols)
    return halves.swapaxes(1, 2).reshape(rows, cols)


NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name):
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def load(path, rope_parameters=None):
    reader = gguf.GGUFReader(path)
    heads = metadata(reader, "llama.attention.head_count")
    kv_heads = metadata(reader, "llama.attention.head_count_kv", heads)
    state = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape(tuple(reversed(tensor.shape.tolist())))
        if ".attn_q." in tensor.name:
            values = unpermute(values, heads)
        if ".attn_k." in tensor.name:
            values = unpermute(values, kv_heads)
        state[hf_name(tensor.name)] = torch.tensor(
            np.ascontiguousarray(values, dtype=np.float32)
        )
    tied = "lm_head.weight" not in state
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    vocabulary, hidden = state["model.embed_tokens.weight"].shape
    theta = metadata(reader, "llama.rope.freq_base")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=metadata(reader, "llama.feed_forward_length"),
        num_hidden_layers=metadata(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=metadata(
            reader, "llama.attention.layer_norm_rms_epsilon"
        ),
        max_position_embeddings=metadata(reader, "llama.context_length"),
        rope_parameters=rope_parameters
        or {"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return reader, model


@torch.no_grad()
def teacher_forced(model, ids):
    return model(torch.tensor([ids])).logits[0].numpy().astype(np.float32)


# --- tiny checkpoints -----------------------------------------------------

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = ["t h", "Ġ t", "Ġ a", "i n", "Ġt h", "e r", "o n", "r e", "h e"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

TINY = {
    "f32-tied": dict(
        hidden=64, heads=4, kv_heads=2, ffn=96, layers=2, theta=10000.0,
        merges=4, tied=True, matrix=Type.F32, embedding=Type.F32,
    ),
    "bf16-llama3": dict(
        hidden=96, heads=3, kv_heads=1, ffn=160, layers=3, theta=500000.0,
        merges=9, tied=False, matrix=Type.BF16, embedding=Type.F16,
        rope=LLAMA3,
    ),
    "q8_0-mha": dict(
        hidden=64, heads=4, kv_heads=4, ffn=128, layers=2, theta=100000.0,
        merges=2, tied=True, matrix=Type.Q8_0, embedding=Type.Q8_0,
    ),
    "q4_0-untied": dict(
        hidden=96, heads=6, kv_heads=2, ffn=192, layers=2, theta=10000.0,
        merges=7, tied=False, matrix=Type.Q4_0, embedding=Type.Q8_0,
    ),
    "q4_1-linear": dict(
        hidden=64, heads=2, kv_heads=1, ffn=128, layers=2, theta=10000.0,
        merges=5, tied=True, matrix=Type.Q4_1, embedding=Type.Q8_0,
        rope=LINEAR,
    ),
}


def byte_alphabet():
    """The printable stand-ins of the 256 bytes in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet, spare = {}, 256
    for byte in range(256):
        alphabet[byte] = byte if byte in plain else spare
        spare += byte not in plain
    return [chr(alphabet[byte]) for byte in range(256)]


def llama3_factors(spec, dims):
    """What each pair's wavelength is stretched by, as rope_freqs.weight."""
    base = spec["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    wavelength = 2 * np.pi * base
    context = spec["original_max_position_embeddings"]
    low = context / spec["low_freq_factor"]
    high = context / spec["high_freq_factor"]
    smooth = (context / wavelength - spec["low_freq_factor"]) / (
        spec["high_freq_factor"] - spec["low_freq_factor"]
    )
    between = 1 / ((1 - smooth) / spec["factor"] + smooth)
    factors = np.where(wavelength > low, spec["factor"], between)
    return np.where(wavelength < high, 1.0, factors).astype(np.float32)


def write_tiny(path, spec, random):
    head_dim = spec["hidden"] // spec["heads"]
    tokens = SPECIAL + byte_alphabet()
    merges = MERGES[: spec["merges"]]
    tokens += [m.replace(" ", "") for m in merges]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random Llama for tests")
    writer.add_block_count(spec["layers"])
    writer.add_context_length(256)
    writer.add_embedding_length(spec["hidden"])
    writer.add_feed_forward_length(spec["ffn"])
    writer.add_head_count(spec["heads"])
    writer.add_head_count_kv(spec["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(spec["theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    def add(name, rows, cols, kind, scale=1.0, heads=None):
        values = random.standard_normal((rows, cols)) * scale / np.sqrt(cols)
        values = values.astype(np.float32)
        if heads:
            values = permute(values, heads)
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)

    def add_norm(name):
        values = 1 + 0.2 * random.standard_normal(spec["hidden"])
        writer.add_tensor(name, values.astype(np.float32))

    hidden, kind = spec["hidden"], spec["matrix"]
    add("token_embd.weight", len(tokens), hidden, spec["embedding"], 2.0)
    if not spec["tied"]:
        add("output.weight", len(tokens), hidden, Type.Q8_0
            if kind == Type.Q4_0 else kind, 2.0)
    add_norm("output_norm.weight")
    rope = spec.get("rope", {})
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    for layer in range(spec["layers"]):
        block = f"blk.{layer}."
        kv_rows = spec["kv_heads"] * head_dim
        add_norm(block + "attn_norm.weight")
        add(block + "attn_q.weight", hidden, hidden, kind, 2.0, spec["heads"])
        add(block + "attn_k.weight", kv_rows, hidden, kind, 2.0,
            spec["kv_heads"])
        add(block + "attn_v.weight", kv_rows, hidden, kind)
        add(block + "attn_output.weight", hidden, hidden, kind)
        add_norm(block + "ffn_norm.weight")
        add(block + "ffn_gate.weight", spec["ffn"], hidden, kind, 2.0)
        add(block + "ffn_up.weight", spec["ffn"], hidden, kind)
        add(block + "ffn_down.weight", hidden, spec["ffn"], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(tokens)


def make_tiny():
    (HERE / "tiny").mkdir(exist_ok=True)
    for seed, (name, spec) in enumerate(TINY.items()):
        random = np.random.default_rng(1000 + seed)
        path = HERE / "tiny" / f"{name}.gguf"
        vocabulary = write_tiny(path, spec, random)
        _, model = load(path, spec.get("rope"))
        ids = random.integers(0, vocabulary, 40).tolist()
        logits = teacher_forced(model, ids)
        write_reference(
            path.with_suffix(".ref"), vocabulary, vocabulary,
            [(len(ids), ids, logits)],
        )
        print(name, "logits", logits.std(), np.abs(logits).max())


# --- the real model -------------------------------------------------------

CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained "
    "by Hugging Face<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def read_prompts():
    lines = (HERE / "prompts.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("#") or not line:
            continue
        kind, text = line.split(":", 1)
        text = text.replace("\\n", "\n")
        yield CHAT.format(text) if kind == "chat" else text


def make_tokenizer(reader):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokens = metadata(reader, "tokenizer.ggml.tokens")
    kinds = metadata(reader, "tokenizer.ggml.token_type")
    merges = metadata(reader, "tokenizer.ggml.merges")
    tokenizer = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [tuple(merge.split(" ")) for merge in merges],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t, k in zip(tokens, kinds) if k == 3]
    )
    return tokenizer


@torch.no_grad()
def continue_greedily(model, prompts):
    """Appends the reference's own choice, ignoring any end token. Rows of a
    batch are padded on the left and masked."""
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt):] = torch.tensor(prompt)
        mask[row, width - len(prompt):] = 1
    cache, step = None, ids
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    drawn = []
    for _ in range(CONTINUATION_TOKENS):
        out = model(
            step, attention_mask=mask, position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )
        cache = out.past_key_values
        step = out.logits[:, -1].argmax(-1, keepdim=True)
        drawn.append(step)
        mask = torch.cat([mask, torch.ones_like(step)], dim=1)
        positions = positions[:, -1:] + 1
    drawn = torch.cat(drawn, dim=1).tolist()
    return [prompt + row for prompt, row in zip(prompts, drawn)]


def make_real(path):
    reader, model = load(path)
    tokenizer = make_tokenizer(reader)
    prompts = [
        tokenizer.encode(text, add_special_tokens=False).ids
        for text in read_prompts()
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    sequences = [None] * len(prompts)
    for start in range(0, len(order), BATCH):
        batch = order[start:start + BATCH]
        rows = continue_greedily(model, [prompts[i] for i in batch])
        for i, ids in zip(batch, rows):
            sequences[i] = (len(prompts[i]), ids, teacher_forced(model, ids))
        print("sequences", start + len(batch), flush=True)
    differing = 0
    for prompt_length, ids, logits in sequences:
        choice = logits[prompt_length - 1:-1].argmax(1)
        differing += int((choice != np.array(ids[prompt_length:])).sum())
    print("positions where batched and single passes chose differently:",
          differing)
    vocabulary = model.config.vocab_size
    write_reference(HERE / "smollm2-135m-instruct.ref", vocabulary, 8,
                    sequences)
    text = tokenizer.decode(sequences[0][1], skip_special_tokens=False)
    print(json.dumps(text, ensure_ascii=False))


def read_sequences(path):
    with open(path, "rb") as file:
        assert file.read(8) == b"TRPREF01"
        count, top_k, _ = struct.unpack("<III", file.read(12))
        for _ in range(count):
            prompt_length, length = struct.unpack("<II", file.read(8))
            ids = np.frombuffer(file.read(4 * length), "<i4").tolist()
            best = np.frombuffer(file.read(4 * length * top_k), "<i4")
            logits = np.frombuffer(file.read(4 * length * top_k), "<f4")
            shape = (length, top_k)
            yield prompt_length, ids, best.reshape(shape), logits.reshape(shape)


def round_to_int8(x):
    """Blocks of 32 with one scale: what a product makes of its input."""
    blocks = x.unflatten(-1, (-1, 32))
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127 / largest, 0)
    return (torch.round(blocks * inverse) * (largest / 127)).flatten(-2)


def compute_as_cpu(model):
    from transformers.models.llama import modeling_llama

    exact = modeling_llama.eager_attention_forward

    def attention(module, query, key, value, *rest, **options):
        key, value = key.half().float(), value.half().float()
        return exact(module, query, key, value, *rest, **options)

    modeling_llama.eager_attention_forward = attention
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs: (round_to_int8(inputs[0]),)
            )


def measure_int8(path):
    _, model = load(path)
    compute_as_cpu(model)
    differences, margins, positions = [], [], 0
    for _, ids, best, exact in read_sequences(
        HERE / "smollm2-135m-instruct.ref"
    ):
        logits = teacher_forced(model, ids)
        rounded = np.take_along_axis(logits, best, axis=1)
        differences.append(np.abs(rounded - exact).ravel())
        changed = logits.argmax(1) != best[:, 0]
        margins += (exact[:, 0] - exact[:, 1])[changed].tolist()
        positions += len(ids)
    differences = np.concatenate(differences)
    print("mean", differences.mean(), "99 %", np.quantile(differences, 0.99),
          "worst", differences.max())
    print("same choice", positions - len(margins), "of", positions,
          "widest lost margin", max(margins))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    if sys.argv[1:] == ["tiny"]:
        make_tiny()
    elif len(sys.argv) == 3 and sys.argv[1] == "real":
        make_real(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "int8":
        measure_int8(sys.argv[2])
    else:
        sys.exit(__doc__)
