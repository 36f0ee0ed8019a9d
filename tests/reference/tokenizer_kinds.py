"""Small tokenizers of every kind, trained on our own sentences.

build(name) gives the form of a tokenizer.json for each name in KINDS;
sentencepiece(name, folder) trains with SentencePiece itself.
"""

import base64
import io
import json
import tempfile

import tokenizers
from tokenizers import models, trainers

import tokenizer_corpus

SPACE = "\u2581"
CORPUS = (tokenizer_corpus.SENTENCES + tokenizer_corpus.CODE) * 4
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def steps(key, *list_):
    return {"type": "Sequence", key: list(list_)}


def metaspace(scheme="always", split=True):
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme,
            "split": split}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def strip_front():
    return {"type": "Strip", "content": " ", "start": 1, "stop": 0}


SPACED = steps("decoders", replace(SPACE, " "), {"type": "ByteFallback"},
               {"type": "Fuse"}, strip_front())
BERT = {"type": "BertNormalizer", "clean_text": True,
        "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}


def token(content, special, **flags):
    entry = {"content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": not special, "special": special}
    return entry | flags


CHAT = [token("<|begin|>", True), token("<|end|>", True, rstrip=True),
        token("fog", False, single_word=True, normalized=False),
        token("<mask>", True, lstrip=True), token("灯台", False)]

# name: (model, normalizer, pre-tokenizer, decoder, post-processor)
KINDS = {
    # Llama 2: the whole text is one word.
    "spm_bpe": ("bpe", steps("normalizers", {"type": "Prepend", "prepend":
                SPACE}, replace(" ", SPACE)), None, SPACED, "bos"),
    # Gemma: no space before the text, words of their own.
    "spm_bpe_split": ("bpe", replace(" ", SPACE), {"type": "Split", "pattern":
                      {"String": SPACE}, "behavior": "MergedWithPrevious",
                      "invert": False}, SPACED, "bos"),
    # Llama 2 without `legacy`: a space before the first text only.
    "spm_bpe_first": ("bpe", None, metaspace("first", False), SPACED, "bos"),
    # Without bytes: what is not known is unknown.
    "bpe_unknown": ("bpe_unknown", {"type": "NFKC"}, steps("pretokenizers",
                    {"type": "WhitespaceSplit"}, {"type": "Punctuation",
                     "behavior": "Contiguous"}, metaspace()),
                    metaspace(), None),
    "unigram": ("unigram", {"type": "NFKC"}, metaspace(), metaspace(), "t5"),
    # ALBERT.
    "unigram_lower": ("unigram", steps("normalizers", replace("``", '"'),
                      replace("''", '"'), {"type": "NFKD"},
                      {"type": "StripAccents"}, {"type": "Lowercase"},
                      replace(" {2,}", " ", "Regex")),
                      steps("pretokenizers", {"type": "WhitespaceSplit"},
                            metaspace()), metaspace(), "bert"),
    "unigram_bytes": ("unigram_bytes", steps("normalizers", {"type": "Strip",
                      "strip_left": True, "strip_right": False}),
                      metaspace("first"), SPACED, None),
    "wordpiece": ("wordpiece", BERT, {"type": "BertPreTokenizer"},
                  {"type": "WordPiece", "prefix": "##", "cleanup": True},
                  "bert"),
    "wordpiece_cased": ("wordpiece", steps("normalizers", dict(BERT,
                        lowercase=False, strip_accents=False), {"type": "NFD"}),
                        {"type": "Whitespace"}, {"type": "WordPiece",
                        "prefix": "##", "cleanup": False}, "roberta"),
}


def train(model, trainer, normalizer, pre_tokenizer):
    """What a trainer makes of our sentences, with the steps given."""
    file = json.loads(tokenizers.Tokenizer(model).to_str())
    file |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    trained = tokenizers.Tokenizer.from_str(json.dumps(file))
    trained.train_from_iterator(CORPUS, trainer)
    return json.loads(trained.to_str())


def model_of(kind, normalizer, pre_tokenizer):
    options = dict(vocab_size=1500, show_progress=False)
    if kind.startswith("bpe"):
        special = ["<unk>", "<s>", "</s>"] + (BYTES if kind == "bpe" else [])
        # Merges over spaces are wanted, too, where nothing cuts them.
        file = train(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(
            special_tokens=special, max_token_length=12, **options),
            normalizer, pre_tokenizer)
        file["model"] |= {"fuse_unk": kind == "bpe",
                          "byte_fallback": kind == "bpe"}
    elif kind.startswith("unigram"):
        file = train(models.Unigram(), trainers.UnigramTrainer(
            unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"],
            **options), normalizer, pre_tokenizer)
        if kind == "unigram_bytes":
            known = {s for s, _ in file["model"]["vocab"]}
            file["model"]["vocab"] += [[b, 0.0] for b in BYTES
                                       if b not in known]
            file["model"]["byte_fallback"] = True
    else:
        file = train(models.WordPiece(unk_token="[UNK]"),
                     trainers.WordPieceTrainer(special_tokens=[
                         "[UNK]", "[CLS]", "[SEP]"], **options),
                     normalizer, pre_tokenizer)
    return file


def post_processor(kind, ids):
    begin, end = ("[CLS]", "[SEP]") if "[CLS]" in ids else ("<s>", "</s>")

    def special(name, type_id=0):
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name, type_id=0):
        return {"Sequence": {"id": name, "type_id": type_id}}

    def template(single, pair):
        names = {p["SpecialToken"]["id"] for p in single + pair
                 if "SpecialToken" in p}
        return {"type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": {n: {"id": n, "ids": [ids[n]],
                                       "tokens": [n]} for n in sorted(names)}}

    if kind == "bos":
        return template([special(begin), text("A")],
                        [special(begin), text("A"), special(begin, 1),
                         text("B", 1)])
    if kind == "t5":
        return template([text("A"), special(end)],
                        [text("A"), special(end), text("B"), special(end)])
    if kind == "bert":
        return {"type": "BertProcessing", "cls": [begin, ids[begin]],
                "sep": [end, ids[end]]}
    if kind == "roberta":
        return {"type": "RobertaProcessing", "cls": [begin, ids[begin]],
                "sep": [end, ids[end]], "trim_offsets": True,
                "add_prefix_space": False}
    return None


def entries(model):
    """Spelling to id of a model's vocabulary."""
    if isinstance(model["vocab"], dict):
        return dict(model["vocab"])
    return {spelling: i for i, (spelling, _) in enumerate(model["vocab"])}


def build(name):
    kind, normalizer, pre_tokenizer, decoder, frame = KINDS[name]
    file = model_of(kind, normalizer, pre_tokenizer)
    ids = entries(file["model"])
    # The bytes are no tokens that text is looked through for.
    file["added_tokens"] = [t for t in file["added_tokens"]
                            if t["content"] not in BYTES]
    for t in CHAT:
        ids.setdefault(t["content"], len(ids))
    file["added_tokens"] += [dict(t, id=ids[t["content"]]) for t in CHAT]
    file["decoder"] = decoder
    file["post_processor"] = post_processor(frame, ids)
    return file


def train_sentencepiece(model_type, rules=None):
    """A SentencePiece model (its protobuf, read). A unigram has NMT's NFKC table
    or one of the rules [(text, replacement)]."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    out = io.BytesIO()
    options = {"normalization_rule_name": "nmt_nfkc"}
    if model_type == "bpe":
        options = {"normalization_rule_name": "identity",
                   "byte_fallback": True, "remove_extra_whitespaces": False}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        if rules is not None:
            table.write("".join("\t".join(
                " ".join(f"{ord(c):X}" for c in side) for side in rule) + "\n"
                for rule in rules))
            table.flush()
            options = {"normalization_rule_tsv": table.name}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([s.replace("\n", " ") for s in CORPUS]),
            model_writer=out, model_type=model_type, vocab_size=1200,
            character_coverage=0.98, hard_vocab_limit=False, minloglevel=2,
            **options)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def unigram_of_sentencepiece(model=None):
    """The tokenizer.json of such a model, as XLM-R's and T5's are made."""
    model = model or train_sentencepiece("unigram")
    table = model.normalizer_spec.precompiled_charsmap
    vocabulary = [[p.piece, p.score] for p in model.pieces]
    ids = {p: i for i, (p, _) in enumerate(vocabulary)}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(token(s, True), id=ids[s])
                         for s in ("<unk>", "<s>", "</s>")],
        "normalizer": steps("normalizers", {
            "type": "Precompiled", "precompiled_charsmap":
            base64.b64encode(table).decode()},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            replace(" {2,}", SPACE, "Regex")),
        "pre_tokenizer": metaspace(), "decoder": metaspace(),
        "post_processor": post_processor("t5", ids),
        "model": {"type": "Unigram", "unk_id": ids["<unk>"],
                  "vocab": vocabulary, "byte_fallback": False},
    }
