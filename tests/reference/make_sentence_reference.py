"""Makes all-minilm-l6-v2.vectors with PyTorch and transformers.

    python make_sentence_reference.py models/all-MiniLM-L6-v2

What the model gives for TEXTS in float32 as its files say: the mean of all
rows, divided by its length. Format: see README.md.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertModel

from make_encoder_fixtures import write_vectors

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Troupe",
    "a",
    "!?",
    "What is the capital of France?",
    "Paris has been the capital of France for most of its history.",
    "def add(a, b): return a + b  # Python",
    "SELECT name FROM users WHERE id = 42;",
    "Der Zug nach Köln fährt um 17:45 Uhr ab.",
    "Les élèves étudient à l'école près de la forêt.",
    "東京は日本の首都です。",
    "Москва слезам не верит.",
    "🙂 emoji and ｆｕｌｌｗｉｄｔｈ letters, naïve café",
    "الطقس جميل اليوم",
    "antidisestablishmentarianism and pneumonoultramicroscopicsilicovolcanoconiosis",
    "  spaces   and\ttabs   between   words  ",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "Each of the workers reports its load, and the router sends the next "
    "request to the one that has the least to do. " * 9,
]


@torch.no_grad()
def main(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = BertModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    sequences = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert len(ids) <= 256
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        sequences.append((text, ids, 0, vector.numpy()))
        print(len(ids), text[:60])
    write_vectors(Path(__file__).with_name("all-minilm-l6-v2.vectors"),
                  sequences)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
