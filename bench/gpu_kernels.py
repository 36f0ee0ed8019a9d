#!/usr/bin/env python3
"""What kernels would take of a GPU, counted where there is none: the module that
nvcc made runs on devices that interpret its PTX (tests/interpreted_gpu) and
count instructions, sectors of memory and turns of shared memory.

  gpu_kernels.py [--build build/release] [--json OUT.json]

For each operation: the microseconds that an H200 cannot be faster than, for its
memory (bytes that have to be read), for issuing the kernel's instructions, for
its tensor cores and for its shared memory, each as if nothing else took time.
PTX is not machine code: ptxas merges and adds some. Nothing of that is a
measurement of a GPU.

  gpu_kernels.py --measured PROGRAM [--json OUT.json]

Where there is one: PROGRAM (bench_gpu_kernels) runs operations of Qwen2.5-0.5B
and 7B on it, many in a graph, and each is shown beside what its memory, or a
prompt's products, take at least of an H200. A line per operation, as it ends.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
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


# An operation on a GPU, and how many multiply-adds it has where it is bound by
# those: all of them by a library, as NVIDIA says its tensor cores can.
MULTIPLIES_PER_S = 989e12 / 2


def step_of(name, hidden, heads, kv_heads, dim, wide):
    """A layer's: products by our own kernel, those that a trial chose for many
    rows, attention."""
    keys = 2 * kv_heads * dim
    products = [("q, k, v", heads * dim + keys, hidden, {"normed": True}),
                ("output", hidden, heads * dim, {}),
                ("gate, up", 2 * wide, hidden, {"normed": True, "gated": True}),
                ("down", hidden, wide, {})]
    for what, outputs, cols, how in products:
        for rows in 1, 32, 128:
            yield linear(f"{name}, {what}", "bf16", outputs, cols, rows, **how)
        for rows, role in (128, []), (2048, ["--prompt"]):
            one = linear(f"{name}, {what}, as chosen", "bf16", outputs, cols,
                         rows, **how)
            one["call"] = ["--chosen", *one["call"], *role]
            one["multiplies"] = rows * outputs * cols
            yield one
    for rows in 1, 32, 128:
        yield attention(f"{name}, attention", heads, kv_heads, dim, 1024, rows)
    one = prompt(f"{name}, attention", heads, kv_heads, dim, 2048)
    one["multiplies"] = heads * dim * 2048 * 2048 # the half of two products
    yield one


MEASURED = [*step_of("0.5B", 896, 14, 2, 64, 4864),
            *step_of("7B", 3584, 28, 4, 128, 18944)]


def measured(program, call):
    """Of one operation: microseconds, and the arithmetic that it is of."""
    done = subprocess.run([program, "--measure", *map(str, call)], check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        return {"error": done.stderr.strip() or f"it ended with {done.returncode}"}
    return json.loads(done.stdout)


def measure_all(program, operations, path):
    """Whether all could be measured. Keeps what was seen so far in the file."""
    results = []
    print("| operation | us | least | of the least |\n"
          "| --- | --- | --- | --- |")
    for operation in operations:
        seen = measured(program, operation["call"])
        least = max(operation["bytes"] / BYTES_PER_S,
                    operation.get("multiplies", 0) / MULTIPLIES_PER_S) * 1e6
        print(f"| {operation['name']} | "
              + (f"{seen['us']:.4g} | {least:.4g} | {least / seen['us']:.0%} |"
                 if "us" in seen else f"{seen['error']} | | |"), flush=True)
        results.append({**operation, "least_us": least, **seen})
        keep(results, path)
    return all("us" in one for one in results)


def keep(results, path):
    if path:
        path.write_text(json.dumps(results, indent=1))


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


def count_all(build):
    results = []
    columns = None
    for operation in OPERATIONS:
        kernels = counted(build, operation["call"])
        row = microseconds(kernels, operation["bytes"])
        if columns is None:
            columns = list(row)
            print("| operation | " + " | ".join(columns) + " |")
            print("| --- |" + " --- |" * len(columns))
        print(f"| {operation['name']} | "
              + " | ".join(f"{row[column]:.4g}" for column in columns) + " |",
              flush=True)
        results.append({**operation, **row, "kernels": kernels})
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path,
                        default=pathlib.Path("build/release"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--measured", metavar="PROGRAM", type=pathlib.Path)
    args = parser.parse_args()
    if args.measured:
        sys.exit(not measure_all(args.measured, MEASURED, args.json))
    keep(count_all(args.build), args.json)


if __name__ == "__main__":
    main()
