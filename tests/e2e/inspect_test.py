"""troupe inspect."""

import json

import pytest

from cluster import ROOT, WEIGHTS, run_verb

TINY = ROOT / "tests/reference/tiny"


def found(*arguments):
    said = run_verb("inspect", *arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def test_a_gguf_file_is_described_for_people():
    said = run_verb("inspect", WEIGHTS, "--tensors", "--template")
    assert said.returncode == 0, said.stderr
    for words in ["architecture    llama", "layers          30",
                  "134.5 M in 272 tensors", "q4_1", "byte-level BPE",
                  "<|im_end|> (2)", "KV cache", "blk.29.ffn_down.weight",
                  "{% for message in messages %}"]:
        assert words in said.stdout, said.stdout


def test_a_gguf_file_is_described_for_scripts():
    it = found(WEIGHTS, "--kv-cache-memory-bytes", 64 << 20,
               "--max-model-len", 1024)
    assert it["format"] == "gguf"
    assert it["refusal"] is None
    assert (it["layers"], it["heads"], it["kv_heads"]) == (30, 9, 3)
    assert it["memory"]["max_model_len"] == 1024
    assert 0 < it["memory"]["kv_cache_bytes"] <= 64 << 20
    sizes = {one["name"]: one["shape"] for one in it["tensors"]}
    assert sizes["token_embd.weight"] == [576, 49152]


def test_a_directory_is_described_as_it_would_be_loaded():
    plain = found(TINY / "llama-bf16")
    smaller = found(TINY / "llama-bf16", "--quantization", "q4_0")
    assert plain["format"] == "safetensors"
    assert plain["parameters"] == smaller["parameters"]
    assert (smaller["memory"]["weight_bytes"]
            < plain["memory"]["weight_bytes"])
    assert found(TINY / "llama-awq")["quantization"] == "awq"


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "org").symlink_to(TINY)
    monkeypatch.chdir(tmp_path)
    for name in "org/llama-bf16", "org/llama-bf16/", "./org/llama-bf16":
        assert found(name)["architecture"] == "llama"
    gone = run_verb("inspect", "org/none")
    assert gone.returncode == 1
    for words in "org/none", "no such file or folder", "troupe pull":
        assert words in gone.stderr


@pytest.mark.parametrize("content, words", [
    (b"", "empty"), (b"GGUF" + b"\xff" * 64, "GGUF")])
def test_what_is_no_model_is_refused(tmp_path, content, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    said = run_verb("inspect", path)
    assert said.returncode == 1
    assert said.stdout == ""
    assert words in said.stderr
    assert "no such" in run_verb("inspect", tmp_path / "missing.gguf").stderr


def test_what_cannot_be_served_says_why(tmp_path):
    config = json.loads((TINY / "llama-bf16/config.json").read_text())
    for file in (TINY / "llama-bf16").iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    said = run_verb("inspect", tmp_path)
    assert said.returncode == 1
    assert f"layers          {config['num_hidden_layers']}" in said.stdout
    assert "cannot be served: " in said.stderr
    assert "tokenizer.json" in said.stderr
