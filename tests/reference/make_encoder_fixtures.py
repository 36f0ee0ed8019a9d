"""Makes the fixtures of models that pool with PyTorch and transformers.

    python make_encoder_fixtures.py [NAME ...]

For each model of MODELS a tiny random one, into encoders/: NAME/ is what
transformers' own save_pretrained makes of it (BF16), with the files that
sentence-transformers puts beside it and a tokenizer of 256 words; NAME.gguf the
same weights as GGUF has them; NAME.vectors what transformers' own class gives
in float32, pooled as sentence-transformers pools. Two prompts have a second
text. Format of a .vectors file: see README.md.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

HERE = Path(__file__).resolve().parent / "encoders"
VOCABULARY = 256
LENGTHS = [(1, 0), (2, 0), (9, 4), (40, 0), (64, 31)]  # tokens, second text

COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=80,
)
ROBERTA = dict(type_vocab_size=1, pad_token_id=1, max_position_embeddings=82)
MODERN = dict(
    num_hidden_layers=4, local_attention=12, pad_token_id=0, bos_token_id=1,
    eos_token_id=2, cls_token_id=1, sep_token_id=2,
)
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


class Model:
    def __init__(self, class_name, arch, options, *, pooling="mean",
                 normalised=False, activation=None, more=None):
        self.class_name = class_name
        self.arch = arch
        self.options = {**COMMON, **options}
        self.pooling = pooling  # of embeddings
        self.normalised = normalised
        self.activation = activation  # of a score
        self.more = more or {}  # beside what transformers writes


MODELS = {
    "bert-embedding": Model(
        "BertModel", "bert", {}, normalised=True,
        more=dict(matryoshka_dimensions=[8, 16, 32]),
    ),
    "bert-score": Model(
        "BertForSequenceClassification", "bert", dict(num_labels=1),
        activation=SIGMOID,
        more=dict(sentence_transformers=dict(activation_fn=SIGMOID)),
    ),
    "xlm-roberta-embedding": Model(
        "XLMRobertaModel", "bert", ROBERTA, pooling="cls",
        more=dict(is_matryoshka=True),
    ),
    "xlm-roberta-score": Model(
        "XLMRobertaForSequenceClassification", "bert",
        dict(num_labels=1, **ROBERTA), activation=IDENTITY,
        more=dict(sbert_ce_default_activation_function=IDENTITY),
    ),
    "modernbert-embedding": Model(
        "ModernBertModel", "modern-bert", MODERN, pooling="lasttoken",
        normalised=True,
    ),
    "qwen3-embedding": Model(
        "Qwen3Model", "qwen3",
        dict(num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-5,
             tie_word_embeddings=True),
        pooling="lasttoken", normalised=True,
    ),
    "modernbert-score": Model(
        "ModernBertForSequenceClassification", "modern-bert",
        dict(num_labels=1, classifier_pooling="mean", **MODERN),
        activation=SIGMOID,
    ),
}


def randomise(model, random):
    """Weights that make every part of the model matter."""
    for name, value in model.named_parameters():
        noise = torch.tensor(random.standard_normal(value.shape))
        if "norm" in name.lower() and name.endswith("weight"):
            noise = 1 + 0.3 * noise
        elif name.endswith("bias"):
            noise = 0.3 * noise
        elif "embeddings" in name:
            noise = 0.5 * noise
        else:
            noise = noise * 1.5 / math.sqrt(value.shape[-1])
        value.data.copy_(noise)


def make(name, row):
    random = np.random.default_rng(3000)
    kind = getattr(transformers, row.class_name)
    config = kind.config_class(**row.options)
    config.dtype = "bfloat16"
    model = kind(config)
    randomise(model, random)
    folder = HERE / name
    model.to(torch.bfloat16).save_pretrained(folder)
    write_json(folder / "config.json",
               json.loads((folder / "config.json").read_text()) | row.more)
    write_tokenizer(folder)
    if row.activation is None:
        write_modules(folder, row)
    model = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    write_gguf(HERE / f"{name}.gguf", row, model)
    sequences = []
    for length, second in LENGTHS:
        ids = random.integers(3, VOCABULARY, length).tolist()
        sequences.append(("-", ids, second, vector_of(row, model, ids, second)))
    write_vectors(HERE / f"{name}.vectors", sequences)
    all_values = np.array([one[3] for one in sequences])
    print(name, "values", np.abs(all_values).max(), "spread",
          all_values.std(axis=0).mean())


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tokenizer(folder):
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    made = Tokenizer(models.WordPiece(
        {word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.save(str(folder / "tokenizer.json"))


def write_modules(folder, row):
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * row.normalised
    write_json(folder / "modules.json", [
        dict(idx=i, name=str(i), path=f"{i}_{kind}" if i else "",
             type=f"sentence_transformers.models.{kind}")
        for i, kind in enumerate(kinds)
    ])
    flags = {
        f"pooling_mode_{flag}": flag.startswith(row.pooling)
        for flag in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json",
               dict(word_embedding_dimension=COMMON["hidden_size"], **flags))
    write_json(folder / "sentence_bert_config.json",
               dict(max_seq_length=72, do_lower_case=False))


@torch.no_grad()
def vector_of(row, model, ids, second):
    inputs = dict(input_ids=torch.tensor([ids]))
    if getattr(model.config, "type_vocab_size", 1) > 1:
        types = [int(second > 0 and i >= second) for i in range(len(ids))]
        inputs["token_type_ids"] = torch.tensor([types])
    out = model(**inputs)
    if row.activation is not None:
        logits = out.logits[0]
        return (logits.sigmoid() if row.activation == SIGMOID else logits
                ).numpy()
    hidden = out.last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0],
              "lasttoken": hidden[-1]}[row.pooling]
    if row.normalised:
        pooled = torch.nn.functional.normalize(pooled, dim=0)
    return pooled.numpy()


def write_vectors(path, sequences):
    """(text or "-", ids, where the second text begins, vector) each."""
    lines = [f"{len(sequences)} {len(sequences[0][3])}"]
    for text, ids, second, vector in sequences:
        lines += [text, " ".join(map(str, [len(ids), second, *ids])),
                  " ".join(f"{value:.9g}" for value in vector)]
    path.write_text("\n".join(lines) + "\n")


# --- GGUF -----------------------------------------------------------------

NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "pooler.dense": "cls",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "classifier": "cls.output",
    "embeddings.tok_embeddings": "token_embd",
    "embeddings.norm": "token_embd_norm",
    "attn_norm": "attn_norm",
    "attn.Wqkv": "attn_qkv",
    "attn.Wo": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.Wi": "ffn_up",
    "mlp.Wo": "ffn_down",
    "final_norm": "output_norm",
    "head.dense": "cls",
    "head.norm": "cls.norm",
    "embed_tokens": "token_embd",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "norm": "output_norm",
}


def write_gguf(path, row, model):
    config = model.config
    writer = gguf.GGUFWriter(path, row.arch)
    cut = 1 + config.pad_token_id if "XLM" in row.class_name else 0
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings - cut)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if row.arch == "qwen3":
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    else:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", None)
                                  or config.norm_eps)
        writer.add_causal_attention(False)
    pooling = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS,
               "lasttoken": gguf.PoolingType.LAST}[row.pooling]
    if row.activation is not None:
        pooling = gguf.PoolingType.RANK
        writer.add_classifier_output_labels(["LABEL_0"])
    writer.add_pooling_type(pooling)
    # Keys of ours, for what GGUF does not say.
    writer.add_bool("troupe.normalised", row.normalised)
    writer.add_bool("troupe.sigmoid", row.activation == SIGMOID)
    writer.add_bool("troupe.score_of_mean",
                    getattr(config, "classifier_pooling", "cls") == "mean")
    if row.arch == "modern-bert":
        writer.add_sliding_window(config.local_attention)
        writer.add_sliding_window_pattern(3)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        ropes = config.rope_parameters
        writer.add_rope_freq_base(ropes["full_attention"]["rope_theta"])
        writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
    for name, values in gguf_tensors(row, model, cut):
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            data = gguf.quants.quantize(values.astype(np.float32), Type.BF16)
            writer.add_tensor(name, data, raw_dtype=Type.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(row, model, cut):
    for name, value in model.state_dict().items():
        for prefix in ("bert.", "roberta.", "model."):
            name = name.removeprefix(prefix)
        module, part = name.rsplit(".", 1)
        if module == "pooler.dense" and row.activation is None:
            continue
        values = value.float().numpy()
        if module == "embeddings.position_embeddings":
            values = values[cut:]
        words = module.removeprefix("encoder.").split(".")
        block = ""
        if words[0] in ("layer", "layers"):
            block, module = f"blk.{words[1]}.", ".".join(words[2:])
        yield f"{block}{NAMES[module]}.{part}", values


if __name__ == "__main__":
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for title, row in MODELS.items():
        if not sys.argv[1:] or title in sys.argv[1:]:
            make(title, row)
