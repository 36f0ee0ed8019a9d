"""Byte-level BPE on English text, one core, beside `tokenizers` and `tiktoken`.

  bench/tokenizer.py --tokenize PROGRAM --gguf FILE [--pairs 7]

PROGRAM is tokenize_file, FILE a model whose vocabulary is used; both Llama 3's
and GPT-2's way to cut words. Needs tokenizers, gguf and tiktoken (PyPI). The text
is this Python's own documentation: its manual's topics and the docstrings of its
library, in parts of 64 KiB. Rates are of processor time, so that other programs
on the machine count less; runs alternate, the median of the ratios counts.
"""

import argparse
import ast
import json
import os
import pathlib
import pydoc_data.topics
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "reference"))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import compare_tokenizer  # noqa: E402

PART = 65536
# tiktoken has one pattern; that of GPT-2's is ByteLevel's own.
PATTERNS = {
    "llama-bpe": compare_tokenizer.PRE_TOKENIZERS["llama-bpe"]
    ["pretokenizers"][0]["pattern"]["Regex"],
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
             r"|\s+(?!\S)|\s+"}


def english():
    """Parts of text, mostly English prose."""
    out = list(pydoc_data.topics.topics.values())
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob(
            "**/*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text())
        except (SyntaxError, UnicodeDecodeError):
            continue
        out += [ast.get_docstring(node) or "" for node in ast.walk(tree)
                if isinstance(node, (ast.Module, ast.ClassDef,
                                     ast.FunctionDef))]
    text = "\n".join(out)
    return [text[i:i + PART] for i in range(0, len(text), PART)]


def alphabet():
    """The byte that each character of the byte alphabet stands for."""
    from tokenizers import pre_tokenizers
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    out = {chr(b): b for b in plain}
    out |= {chr(256 + i): b for i, b in enumerate(others)}
    assert set(out) == set(pre_tokenizers.ByteLevel.alphabet())
    return out


def make_tiktoken(file, pattern):
    import tiktoken
    byte_of = alphabet()
    special = {t["content"] for t in file["added_tokens"]}
    ranks = {bytes(byte_of[c] for c in s): i
             for s, i in file["model"]["vocab"].items()
             if s not in special and all(c in byte_of for c in s)}
    return tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={})


def rate(encode, parts):
    size = sum(len(p.encode()) for p in parts)
    begin = time.thread_time()
    ids = [encode(p) for p in parts]
    return size / 1e6 / (time.thread_time() - begin), sum(map(len, ids))


def our_rate(program, json_path, texts_path, ids_path):
    run = subprocess.run([program, json_path, texts_path, ids_path, "plain"],
                         capture_output=True, text=True, check=True)
    return float(re.search(r"encode: ([\d.]+) MB/s", run.stderr)[1])


def calibration():
    """Million additions per second of processor time in this interpreter."""
    begin, value = time.thread_time(), 0
    for _ in range(2_000_000):
        value += 1
    return 2 / (time.thread_time() - begin)


def measure(pre, options, temp):
    import tokenizers
    file = compare_tokenizer.json_of_gguf(options.gguf, pre)
    json_path = temp / f"{pre}.json"
    json_path.write_text(json.dumps(file))
    parts = english()
    texts_path, ids_path = temp / "texts", temp / "ids"
    compare_tokenizer.write_texts(texts_path, [p.encode() for p in parts])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(file))
    third = make_tiktoken(file, PATTERNS[pre])
    rows = []
    for _ in range(options.pairs):
        ours = our_rate(options.tokenize, json_path, texts_path, ids_path)
        one, one_ids = rate(lambda p: theirs.encode(
            p, add_special_tokens=False).ids, parts)
        two, two_ids = rate(third.encode_ordinary, parts)
        rows.append((ours, one, two, calibration()))
        print(f"{pre}: ours {ours:.1f}, tokenizers {one:.2f}, tiktoken "
              f"{two:.1f} MB/s; {rows[-1][3]:.1f} M additions/s", flush=True)
    ids = [len(i) for i, _ in compare_tokenizer.read_results(ids_path)]
    size = sum(len(p.encode()) for p in parts)
    print(f"{pre}: {size} bytes; ids: ours {sum(ids)}, tokenizers {one_ids}, "
          f"tiktoken {two_ids}")
    for name, column in (("tokenizers", 1), ("tiktoken", 2)):
        ratios = sorted(r[0] / r[column] for r in rows)
        print(f"{pre}: ours / {name}: {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f}-{ratios[-1]:.2f})")
    print(f"{pre}: medians: ours "
          + ", ".join(f"{n} {statistics.median(r[i] for r in rows):.2f}"
                      for i, n in enumerate(("", "tokenizers", "tiktoken")))
          + " MB/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenize", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        for pre in PATTERNS:
            measure(pre, options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
