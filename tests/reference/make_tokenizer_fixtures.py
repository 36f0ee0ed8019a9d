"""Writes fixtures/tokenizer_*.json and .bin; needs tests/requirements.txt.

Each .json is a small tokenizer, trained on our own sentences. Its .bin holds
texts with the ids that Hugging Face's tokenizers gives, for each text

  u32 bytes | text | u32 count | ids plain | u32 count | ids with special tokens

in little-endian 32-bit numbers; the text may be broken UTF-8.
"""

import json
import pathlib
import struct

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

import compare_tokenizer
import tokenizer_corpus
import tokenizer_kinds

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False,
              "trim_offsets": True, "use_regex": False}
WORDS = dict(BYTE_LEVEL, use_regex=True)
LLAMA3 = compare_tokenizer.PRE_TOKENIZERS["llama-bpe"]


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior,
            "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def token(content, special, **flags):
    entry = {"content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": not special, "special": special}
    return entry | flags


CHAT = [token("<|begin|>", True), token("<|end|>", True),
        token("<|end|>now", True), token("   ", False), token("fog", False,
        single_word=True), token("<mask>", True, lstrip=True),
        token("<gap>", True, rstrip=True), token("<both>", False, lstrip=True,
        rstrip=True), token("灯台", False), token("ệ", False, normalized=True)]

# name: (pre-tokenizer, changes to the file)
KINDS = {
    "words": (WORDS, {}),
    "prefix": (dict(WORDS, add_prefix_space=True), {}),
    "digits": (sequence({"type": "Digits", "individual_digits": True}, WORDS),
               {}),
    "llama3": (LLAMA3, {"ignore_merges": True}),
    "splits": (sequence(split(" ", "MergedWithNext", kind="String"),
                        split(r"[\p{Lu}\p{Lt}]", "MergedWithPrevious"),
                        {"type": "Digits", "individual_digits": False},
                        split(r"(?:\r?\n)|[.,;]", "Contiguous"), BYTE_LEVEL),
               {"pairs": True}),
    "kept": (sequence(split(r"\p{L}+|\p{N}{1,2}|[^\s\p{L}\p{N}]++",
                            "Removed", invert=True), BYTE_LEVEL), {}),
    "nfc": (compare_tokenizer.PRE_TOKENIZERS["qwen2"],
            {"normalizer": {"type": "NFC"}}),
}


def train(pre_tokenizer):
    """Merges learnt from our sentences; the full byte alphabet."""
    model = tokenizers.Tokenizer(models.BPE())
    text = json.dumps(dict(json.loads(model.to_str()),
                           pre_tokenizer=pre_tokenizer))
    model = tokenizers.Tokenizer.from_str(text)
    corpus = tokenizer_corpus.SENTENCES + tokenizer_corpus.CODE
    model.train_from_iterator(corpus * 2, trainers.BpeTrainer(
        vocab_size=700, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(model.to_str())


def build(name):
    pre_tokenizer, changes = KINDS[name]
    file = train(pre_tokenizer)
    model = file["model"]
    model["ignore_merges"] = changes.get("ignore_merges", False)
    if not changes.get("pairs"):
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
    next_id = len(model["vocab"])
    file["added_tokens"] = [dict(t, id=next_id + i)
                            for i, t in enumerate(CHAT)]
    file["normalizer"] = changes.get("normalizer")
    file["decoder"] = dict(WORDS)
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [next_id],
                                         "tokens": ["<|begin|>"]}}}
    return file


# Those of tokenizer_kinds.py that are kept as fixtures, too.
OTHERS = ["spm_bpe", "spm_bpe_first", "bpe_unknown", "unigram_lower",
          "unigram_bytes", "wordpiece", "wordpiece_cased"]


def charsmap():
    """A unigram with a small SentencePiece table of its own."""
    model = tokenizer_kinds.train_sentencepiece("unigram", [
        ("\u00c4", "Ae"), ("A\u0308", "Ae"), ("\u2026", "..."), ("\t", " "),
        ("\ufb01", "fi"), ("\u200b", ""), ("\r\n", "\n"), ("\u2460", "1")])
    return tokenizer_kinds.unigram_of_sentencepiece(model)


def write_expected(path, json_path):
    file = json.loads(json_path.read_text())
    texts = list(tokenizer_corpus.texts(
        7, 60_000, [t["content"] for t in file["added_tokens"]]))
    texts = [t[:300] for t in texts] + [b"", b"a", b"\xff", b"\xe2\x82",
                                        "A\u0308\r\n\ufb01\u0301".encode()]
    plain, special = (compare_tokenizer.expected_ids(
        compare_tokenizer.reference_of(file, parse), texts, parse)
        for parse in (False, True))
    with open(path, "wb") as out:
        for text, *lists in zip(texts, plain, special):
            out.write(struct.pack("<I", len(text)) + text)
            for ids in lists:
                out.write(struct.pack(f"<I{len(ids)}i", len(ids), *ids))


def main():
    FIXTURES.mkdir(exist_ok=True)
    files = {name: build(name) for name in KINDS}
    files |= {name: tokenizer_kinds.build(name) for name in OTHERS}
    files["charsmap"] = charsmap()
    for name, file in files.items():
        path = FIXTURES / f"tokenizer_{name}.json"
        path.write_text(json.dumps(file, ensure_ascii=False,
                                   separators=(",", ":")) + "\n")
        write_expected(path.with_suffix(".bin"), path)


if __name__ == "__main__":
    main()
