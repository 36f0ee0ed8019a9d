"""Writes the real weights as a directory of Hugging Face's formats: BF16
safetensors in two shards, with config.json and the tokenizer's files."""

import json
import struct

import gguf
import numpy as np

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
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}


def metadata(reader, key):
    return reader.get_field(key).contents()


def name_of(tensor):
    if tensor in WHOLE:
        return WHOLE[tensor]
    _, layer, part, _ = tensor.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def halves(weight, heads):
    """GGUF's neighbouring rope pairs as Hugging Face's split halves."""
    rows, cols = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, cols)
    return pairs.swapaxes(1, 2).reshape(rows, cols)


def bf16(values):
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_shard(path, tensors):
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(values.shape),
                        "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            out.write(values.tobytes())


def write_weights(folder, reader):
    heads = metadata(reader, "llama.attention.head_count")
    kv_heads = metadata(reader, "llama.attention.head_count_kv")
    turned = {"attn_q": heads, "attn_k": kv_heads}
    shards = [{}, {}]
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape(tuple(reversed(tensor.shape.tolist())))
        for part, count in turned.items():
            if f".{part}." in tensor.name:
                values = halves(values, count)
        second = len(shards[0]) > len(reader.tensors) // 2
        shards[second][name_of(tensor.name)] = bf16(values)
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_shard(folder / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_config(folder, reader):
    def number(key):
        return metadata(reader, f"llama.{key}")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"), "rope_scaling": None,
        "vocab_size": len(metadata(reader, "tokenizer.ggml.tokens")),
        "hidden_act": "silu", "tie_word_embeddings": True,
        "torch_dtype": "bfloat16"}))


def write_tokenizer(folder, reader):
    tokens = metadata(reader, "tokenizer.ggml.tokens")
    kinds = metadata(reader, "tokenizer.ggml.token_type")
    eos = metadata(reader, "tokenizer.ggml.eos_token_id")
    plain = dict(single_word=False, lstrip=False, rstrip=False,
                 normalized=False, special=True)
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": token, **plain}
                         for i, token in enumerate(tokens) if kinds[i] == 3],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False,
             "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                    "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": metadata(reader, "tokenizer.ggml.merges")}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": tokens[eos], "add_bos_token": False,
        "chat_template": metadata(reader, "tokenizer.chat_template")}))
    (folder / "generation_config.json").write_text(json.dumps({
        "eos_token_id": [eos], "temperature": 0.0}))


def write_directory(folder, weights):
    reader = gguf.GGUFReader(weights)
    write_weights(folder, reader)
    write_config(folder, reader)
    write_tokenizer(folder, reader)
