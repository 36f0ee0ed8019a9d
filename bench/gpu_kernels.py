#!/usr/bin/env python3
"""What kernels would take of a GPU, counted where there is none: the module that
nvcc made runs on devices that interpret its PTX (tests/interpreted_gpu) and
count instructions, sectors of memory and turns of shared memory.

  gpu_kernels.py [--build build/release] [--json OUT.json]

For each operation: the microseconds that an H200 cannot be faster than, for its
memory (bytes that have to be read), for issuing the kernel's instructions, for
its tensor cores and for its shared memory, each as if nothing else took time.
PTX is not machine code: ptxas merges and adds some. Nothing here is a
measurement of a GPU.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

# NVIDIA's figures for the H200 SXM, the clock as it boosts.
PROCESSORS, CLOCK_HZ, BYTES_PER_S = 132, 1.98e9, 4.8e12
SCHEDULERS = 4  # a warp's instruction each, a clock
# 16 x 8 x 16 in bf16, of 2048 multiply-adds a clock and multiprocessor, of which
# mma.sync is said to reach about 62 %.
PRODUCT_CLOCKS = 1.6
SECTOR = 32

BYTES = {"bf16": 2, "f16": 2, "f32": 4, "e4m3": 1}


def linear(name, kind, outputs, cols, rows, gated=False, normed=False):
    written = outputs // 2 if gated else outputs
    return {"name": f"{name}, {kind}, {'normed, ' if normed else ''}"
                    f"{'gated, ' if gated else ''}{rows} rows",
            "call": ["linear", kind, outputs, cols, rows]
                    + ["--normed"] * normed + ["--gated"] * gated,
            "bytes": outputs * cols * BYTES[kind]
                     + 4 * rows * (written + cols)}


def experts(name, kind, count, chosen, cols, inner, rows):
    return {"name": f"{name}, {kind}, {rows} rows",
            "call": ["experts", kind, count, chosen, cols, inner, rows],
            "bytes": min(count, rows * chosen) * 3 * cols * inner * BYTES[kind]
                     + 4 * rows * (2 * cols + 2 * chosen * (inner + cols))}


def attention(name, heads, kv_heads, dim, context, rows):
    return {"name": f"{name}, context {context}, {rows} rows",
            "call": ["attention", heads, kv_heads, dim, context, rows],
            "bytes": rows * (2 * kv_heads * dim * context * 2
                             + 4 * 2 * heads * dim)}


def prompt(name, heads, kv_heads, dim, tokens):
    """All of a prompt's rows; a row's keys and values are read once, but for
    the other rows."""
    return {"name": f"{name}, prompt of {tokens}",
            "call": ["attention", heads, kv_heads, dim, tokens, tokens,
                     "--prompt"],
            "bytes": 2 * kv_heads * dim * tokens * 2
                     + 4 * 2 * heads * dim * tokens}


# Of a layer of Qwen2.5-0.5B, Qwen2.5-7B (a part of its outputs: the rest is
# alike) and Llama-3-8B.
OPERATIONS = (
    [linear("896 x 896", "bf16", 896, 896, rows) for rows in (1, 8, 32)]
    + [linear("2048 of 18944 x 3584", kind, 2048, 3584, rows)
       for kind in ("bf16", "e4m3", "f16") for rows in (1, 32)]
    + [linear("2048 x 3584", "bf16", 2048, 3584, rows) for rows in (16, 64)]
    + [linear("2 x 1024 of 18944 x 3584", kind, 2048, 3584, rows, gated=True,
              normed=True) for kind in ("bf16", "e4m3") for rows in (1, 32)]
    + [experts("8 experts of 768 x 2048, one a row", kind, 8, 1, 2048, 768,
               rows) for kind in ("bf16", "e4m3") for rows in (8, 128, 512)]
    + [attention("14 heads of 64, 2 groups", 14, 2, 64, 1024, rows)
       for rows in (1, 8)]
    + [attention("28 heads of 128, 4 groups", 28, 4, 128, 1024, rows)
       for rows in (1, 8)]
    + [attention("32 heads of 128, 8 groups", 32, 8, 128, 1024, rows)
       for rows in (1, 8)]
    + [prompt("14 heads of 64, 2 groups", 14, 2, 64, 512),
       prompt("28 heads of 128, 4 groups", 28, 4, 128, 512)])


def only(build, name):
    (path,) = build.rglob(name)
    return path


def counted(build, call):
    module = only(build, "libinterpreted_gpu.so")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "counts"
        subprocess.run(
            [build / "bench/bench_gpu_kernels", *map(str, call)], check=True,
            env={**os.environ, "TROUPE_CUDA_MODULE": str(module),
                 "LD_LIBRARY_PATH": str(module.parent),
                 "INTERPRETED_GPU_COUNTS": str(out)})
        return [json.loads(line) for line in out.read_text().splitlines()]


def microseconds(kernels, bytes_least):
    """What each part of an H200 needs at least, and by what it is wasted."""
    def all_of(what):
        return sum(kernel[what] for kernel in kernels)

    moved = SECTOR * (all_of("loaded_sectors") + all_of("stored_sectors"))
    asked = SECTOR * (all_of("loaded_sectors_least")
                      + all_of("stored_sectors_least"))
    clocks = 1e6 / CLOCK_HZ / PROCESSORS
    return {
        "memory": bytes_least / BYTES_PER_S * 1e6,
        "instructions": all_of("instructions") * clocks / SCHEDULERS,
        "tensor cores": all_of("products") * PRODUCT_CLOCKS * clocks,
        "shared memory": all_of("shared_turns") * clocks,
        "launches": all_of("launches"),
        "warps": all_of("warps"),
        "sectors moved / asked for": moved / asked if asked else 1,
        "asked for / least": asked / bytes_least,
        "turns of banks / least":
            all_of("shared_turns") / max(1, all_of("shared_turns_least")),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path,
                        default=pathlib.Path("build/release"))
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    results = []
    columns = None
    for operation in OPERATIONS:
        kernels = counted(args.build, operation["call"])
        row = microseconds(kernels, operation["bytes"])
        if columns is None:
            columns = list(row)
            print("| operation | " + " | ".join(columns) + " |")
            print("| --- |" + " --- |" * len(columns))
        print(f"| {operation['name']} | "
              + " | ".join(f"{row[column]:.4g}" for column in columns) + " |",
              flush=True)
        results.append({**operation, **row, "kernels": kernels})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
