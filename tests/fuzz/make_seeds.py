"""Writes small inputs to start fuzzing from, made of the fixtures.

  make_seeds.py chat_template_fuzz|tokenizer_json_fuzz FOLDER
"""

import json
import pathlib
import sys

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "reference/fixtures"
KEPT = 40


def templates():
    """(name, bytes) of every chat template, and of every feature's."""
    file = json.loads((FIXTURES / "chat_templates.json").read_text())
    for index, template in enumerate(file["templates"].values()):
        yield f"{index}.jinja", template.encode()
    file = json.loads((FIXTURES / "template_features.json").read_text())
    for index, row in enumerate(file["rows"]):
        yield f"feature-{index}.jinja", row["template"].encode()


def shortened(file):
    """A tokenizer.json with the first entries of its vocabulary only."""
    model = file["model"]
    added = {token["content"] for token in file["added_tokens"]}
    if isinstance(model["vocab"], list):
        model["vocab"] = model["vocab"][:KEPT]
    else:
        model["vocab"] = {spelling: i for spelling, i in model["vocab"].items()
                          if i < KEPT or spelling in added}
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair
                 for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs
                           if {*pair, "".join(pair)} <= set(model["vocab"])]
    if "byte_fallback" in model:
        model["byte_fallback"] = False
    return file


def tokenizers():
    for path in sorted(FIXTURES.glob("tokenizer_*.json")):
        file = shortened(json.loads(path.read_text()))
        yield path.name, json.dumps(file, separators=(",", ":")).encode()


def main():
    made = {"chat_template_fuzz": templates, "tokenizer_json_fuzz": tokenizers}
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made[sys.argv[1]]():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
