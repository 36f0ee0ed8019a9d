"""Makes random models of every family, and what transformers computes of them.

    python make_random_families.py FOLDER [--seeds N] [--only FAMILY]
        [--fp8-weights] [--fp8-kv]

For each family, shape of SHAPES, type of the weights and seed FOLDER/NAME/, as
Hugging Face's folders are, with a tokenizer of 256 bytes, and FOLDER/NAME.ref:
logits of transformers' own class in float32 after two prompts that are
continued greedily. `--fp8-...`: of a model whose weights, or keys and values,
were rounded to e4m3; the folders stay as they are. No network, no file but its own; what check_families
compares the engine with (scripts/gpu-check.sh). Format of a .ref file: see
README.md.
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
import traceback

import numpy as np
import torch

from family_models import (
    FAMILIES, continue_greedily, longrope, round_keys_and_values,
    round_weights, router_margin, save_random,
)
from reference_format import write_reference

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from gpu_engine import write_tokenizer  # noqa: E402

# Prompt, greedy continuation. Some models have another rope from 33 positions
# on: a sequence is on one side of them throughout.
SEQUENCES = [(37, 12), (9, 8)]
TOP_K = 64
# Nearer choices of experts may turn over by rounding, and with them the logits.
ROUTER_MARGIN = 0.02

# Shapes beside the fixtures': no size is a multiple of 8; rows of more than
# one round of a warp (256 columns), each head with keys of its own.
SHAPES = {
    "plain": {},
    "odd": dict(vocab_size=259, hidden_size=54, intermediate_size=77,
                num_attention_heads=6, num_key_value_heads=3, head_dim=10),
    "wide": dict(vocab_size=1031, hidden_size=272, intermediate_size=300,
                 num_attention_heads=4, num_key_value_heads=4, head_dim=72),
}
# Where a family's parts are not free.
CHANGES = {
    ("phi3", "odd"): dict(head_dim=16, num_attention_heads=3,
                          num_key_value_heads=1, hidden_size=48,
                          rope_parameters=longrope(6)),
    ("phi3", "wide"): dict(head_dim=64, hidden_size=256,
                           rope_parameters=longrope(24)),
    ("qwen3moe", "odd"): dict(num_experts=7, num_experts_per_tok=2,
                              moe_intermediate_size=27),
    ("qwen3moe", "wide"): dict(moe_intermediate_size=76),
}


def options_of(name, shape):
    return {**FAMILIES[name].options, **SHAPES[shape],
            **CHANGES.get((name, shape), {})}


def draw(model, random, length):
    """Random ids at which no choice of an expert is near."""
    ids = []
    while len(ids) < length:
        more = [*ids, int(random.integers(3, model.config.vocab_size))]
        if router_margin(model, more) > ROUTER_MARGIN:
            ids = more
    return ids


def make(args, name, shape, dtype, seed):
    """Writes one; says what it is like."""
    torch.set_num_threads(1)
    title = f"{name}-{shape}-{str(dtype).removeprefix('torch.')}-{seed}"
    random = np.random.default_rng([seed, *title.encode()])
    folder = args.folder
    model = save_random(folder / title, FAMILIES[name], random, dtype,
                        options_of(name, shape))
    if args.fp8_weights:
        round_weights(model)
    if args.fp8_kv:
        round_keys_and_values(model)
    sequences = []
    for length, more in SEQUENCES:
        prompt = draw(model, random, length)
        made = continue_greedily(model, prompt, more)
        while router_margin(model, made[1]) <= ROUTER_MARGIN:
            more -= 1
            made = continue_greedily(model, prompt, more)
        sequences.append(made)
    write_tokenizer(folder / title)
    write_reference(folder / f"{title}.ref", model.config.vocab_size, TOP_K,
                    sequences)
    logits = np.concatenate([one[2] for one in sequences])
    margins = np.sort(logits, axis=1)
    return (f"{title}: {len(logits)} positions, logits up to "
            f"{np.abs(logits).max():.1f}, least margin "
            f"{(margins[:, -1] - margins[:, -2]).min():.4f}")


def try_to_make(*which):
    """False, if it failed; the others are made."""
    try:
        print(make(*which), flush=True)
        return True
    except Exception:  # of any kind: transformers has many
        traceback.print_exc()
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--fp8-weights", action="store_true")
    parser.add_argument("--fp8-kv", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    all_of = [
        (args, name, shape, dtype, seed)
        for name in ([args.only] if args.only else FAMILIES)
        for shape in SHAPES
        for dtype in (torch.bfloat16, torch.float16)
        for seed in range(args.seeds)
    ]
    # One model to a process at a time: they are too small for more threads.
    workers = len(os.sched_getaffinity(0))
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        made = list(pool.map(try_to_make, *zip(*all_of)))
    print(f"{sum(made)} of {len(made)} models were made")
    sys.exit(not all(made))


if __name__ == "__main__":
    main()
