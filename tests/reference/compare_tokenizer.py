"""Compares our token ids with those of Hugging Face's tokenizers.

  compare_tokenizer.py --tokenize PROGRAM [--gguf FILE] [--bytes N] [--seed N]
                       [--json FILE]... [--every-character] [--junit REPORT]

PROGRAM is tokenize_file (built beside the tests). Compared are the small
tokenizers of fixtures/, those of tokenizer_kinds.py (on --bytes of text each),
with --gguf the file's own tokenizer, and with --json any other. --every-character
adds texts with every character there is (minutes). Ids are compared with special
tokens and without, and the text of the ids. Prints a line per comparison and
writes a JUnit report to --junit; exit status 1 on any difference.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

import tokenizers

import tokenizer_corpus
import tokenizer_kinds

HERE = pathlib.Path(__file__).resolve().parent

AT_ONCE_MAX = 4  # each takes some 300 MB

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # gguf's token types

# What the model families' own tokenizer.json files say, by "tokenizer.ggml.pre".
PRE_TOKENIZERS = {
    "smollm": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
         "use_regex": True}]},
    "gpt-2": {"type": "ByteLevel", "add_prefix_space": False,
              "trim_offsets": True, "use_regex": True},
    "llama-bpe": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
            "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
                     r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                     r"|\s+(?!\S)|\s+"}},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
         "use_regex": False}]},
    "gpt-4o": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
            "Regex": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
                     r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                     r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
                     r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                     r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
                     r"|\s+(?!\S)|\s+"}},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
         "use_regex": False}]},
    "tekken": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
            "Regex": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
                     r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                     r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
                     r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
                     r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
                     r"|\s+(?!\S)|\s+"}},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
         "use_regex": False}]},
    "qwen2": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
            "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
                     r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                     r"|\s+(?!\S)|\s+"}},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
         "use_regex": False}]},
}


def json_of_gguf(path, pre=None):
    """The tokenizer of a GGUF file in the form of a tokenizer.json."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    spellings = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    pre = pre or fields["tokenizer.ggml.pre"].contents()
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": t == CONTROL}
             for i, (s, t) in enumerate(zip(spellings, types))
             if t in (CONTROL, USER_DEFINED)]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added, "normalizer":
            {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": PRE_TOKENIZERS[pre], "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                    "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": pre in ("llama-bpe", "tekken"),
                  "vocab": {s: i for i, s in enumerate(spellings)},
                  "merges": fields["tokenizer.ggml.merges"].contents()},
    }


def write_texts(path, texts):
    with open(path, "wb") as out:
        for text in texts:
            out.write(struct.pack("<I", len(text)) + text)


def read_results(path):
    """(ids, the text that they stand for) of each text."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        count = struct.unpack_from("<I", data, at)[0]
        ids = list(struct.unpack_from(f"<{count}i", data, at + 4))
        at += 4 + 4 * count
        size = struct.unpack_from("<I", data, at)[0]
        yield ids, data[at + 4:at + 4 + size].decode()
        at += 4 + size


def expected_ids(tokenizer, texts, parse_special):
    tokenizer.encode_special_tokens = not parse_special
    return [tokenizer.encode(t.decode("utf-8", "replace"),
                             add_special_tokens=False).ids for t in texts]


def reference_of(file, parse_special):
    """The tokenizer of `tokenizers`. Text never gives special tokens here, but a
    unigram of theirs takes them for pieces: where they are not parsed their
    entries get spellings that no text has."""
    model = file["model"]
    file = file | {"truncation": None, "padding": None}
    if parse_special or not isinstance(model["vocab"], list):
        return tokenizers.Tokenizer.from_str(json.dumps(file))
    hidden = {t["id"]: f"\U0010FFFE{t['id']}"
              for t in file["added_tokens"] if t["special"]}
    vocabulary = [[hidden.get(i, s), score]
                  for i, (s, score) in enumerate(model["vocab"])]
    added = [dict(t, content=hidden.get(t["id"], t["content"]))
             for t in file["added_tokens"]]
    return tokenizers.Tokenizer.from_str(json.dumps(dict(
        file, model=dict(model, vocab=vocabulary), added_tokens=added,
        post_processor=None)))


def compare(name, program, json_path, texts, temp):
    """True if our ids are those of `tokenizers` in both ways of parsing, and
    stand for the same text."""
    texts_path, ids_path = temp / "texts", temp / "ids"
    write_texts(texts_path, texts)
    file = json.loads(json_path.read_text())
    good = True
    for mode in ("plain", "special"):
        run = subprocess.run(
            [program, str(json_path), str(texts_path), str(ids_path), mode],
            capture_output=True, text=True)
        if run.returncode != 0:
            print(f"{name} {mode}: {run.stderr.strip()}")
            return False
        ours = list(read_results(ids_path))
        reference = reference_of(file, mode == "special")
        theirs = expected_ids(reference, texts, mode == "special")
        wrong = [i for i, t in enumerate(theirs)
                 if i >= len(ours) or ours[i][0] != t]
        size = sum(map(len, texts))
        print(f"{name} {mode}: {len(texts)} texts, {size} bytes, "
              f"{sum(map(len, theirs))} ids, {len(wrong)} texts differ",
              flush=True)
        for i in wrong[:3]:
            report(texts[i].decode("utf-8", "replace"), ours[i][0], theirs[i],
                   reference)
        good = good and not wrong and len(ours) == len(theirs)
        if mode == "special":
            # Theirs shows added tokens as its normalizer leaves them, ours as
            # they are spelled.
            shown = {t["id"] for t in file["added_tokens"] if t["normalized"]}
            good = same_texts(name, [one for one in ours
                                     if shown.isdisjoint(one[0])],
                              reference) and good
    return good


def same_texts(name, ours, reference):
    wrong = [(t, reference.decode(ids, skip_special_tokens=False))
             for ids, t in ours
             if t != reference.decode(ids, skip_special_tokens=False)]
    if wrong:
        print(f"{name}: {len(wrong)} texts of ids differ")
    for a, b in wrong[:3]:
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y),
                  min(len(a), len(b)))
        print("  ours:  ", ascii(a[max(0, at - 20):at + 20]))
        print("  theirs:", ascii(b[max(0, at - 20):at + 20]))
    return not wrong


def report(text, ours, theirs, reference):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
              min(len(ours), len(theirs)))
    spell = reference.id_to_token
    print("  ours:  ", [spell(i) for i in ours[max(0, at - 3):at + 5]])
    print("  theirs:", [spell(i) for i in theirs[max(0, at - 3):at + 5]])
    offset = reference.encode(text, add_special_tokens=False).offsets
    if at < len(offset):
        begin = offset[at][0]
        print("  near:  ", ascii(text[max(0, begin - 20):begin + 20]))


def cases(options, temp):
    """(name, path of a tokenizer.json, bytes of text)"""
    for path in sorted((HERE / "fixtures").glob("tokenizer_*.json")):
        yield path.name, path, 1_000_000

    def written(name, file):
        path = temp / f"{name}.json"
        path.write_text(json.dumps(file))
        return path

    for name in tokenizer_kinds.KINDS if options.kinds else []:
        yield (name, written(name, tokenizer_kinds.build(name)), options.bytes)
    if options.kinds:
        yield ("sentencepiece unigram", written(
            "sentencepiece", tokenizer_kinds.unigram_of_sentencepiece()),
            options.bytes)
    for path in options.json:
        yield path, pathlib.Path(path), options.bytes
    if options.gguf:
        for pre, size in [(None, options.bytes), ("gpt-2", 1_000_000),
                          ("llama-bpe", 1_000_000), ("qwen2", 1_000_000),
                          ("gpt-4o", 1_000_000), ("tekken", 1_000_000)]:
            yield (f"gguf as {pre or 'it says'}", written(
                f"gguf-{pre}", json_of_gguf(options.gguf, pre)), size)


def write_junit(path, results):
    suite = ElementTree.Element("testsuite", name="tokenizers",
                                tests=str(len(results)))
    for name, good in results:
        case = ElementTree.SubElement(suite, "testcase", name=name)
        if not good:
            ElementTree.SubElement(case, "failure", message="see the output")
    suite.set("failures", str(sum(not good for _, good in results)))
    ElementTree.ElementTree(suite).write(path)


def compare_case(options, name, path, size):
    added = json.loads(path.read_text())["added_tokens"]
    texts = list(tokenizer_corpus.texts(
        options.seed, size, [t["content"] for t in added]))
    if options.every_character:
        texts += tokenizer_corpus.every_character()
    with tempfile.TemporaryDirectory() as folder:
        return compare(name, options.tokenize, path, texts,
                       pathlib.Path(folder))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenize", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--json", action="append", default=[])
    parser.add_argument("--bytes", type=int, default=5_500_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", action="store_true",
                        help="also 5 MB for each kind, trained here")
    parser.add_argument("--every-character", action="store_true")
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--junit")
    options = parser.parse_args()
    at_once = min(os.cpu_count() or 1, AT_ONCE_MAX)
    with tempfile.TemporaryDirectory() as folder, \
            concurrent.futures.ProcessPoolExecutor(at_once) as pool:
        chosen = [case for case in cases(options, pathlib.Path(folder))
                  if options.only in case[0]]
        # The longest first: it decides when all are done.
        chosen.sort(key=lambda case: -case[2])
        under_way = [(case[0], pool.submit(compare_case, options, *case))
                     for case in chosen]
        results = [(name, one.result()) for name, one in under_way]
    if options.junit:
        write_junit(options.junit, results)
    return 0 if results and all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
