"""The engine on a GPU beside what the GPU can do, and beside torch.compile.

  bench/gpu_engine.py [--engine PROGRAM] [--device cuda|cpu] [--only NAME]
                      [--out DIR] [--work DIR]

Makes models of random weights in the shapes of Qwen2.5-0.5B, Qwen2.5-7B and
Llama-3-8B (bf16), measures in this order: what the memory and the tensor cores
give (a read of many bytes, a large product), the engine (bench_gpu_engine:
decoding at batch 1, 32, 128 and 256 with a context of 1024, the gap between two
such steps by the GPU's clock, a prompt of 2048; batch 1 once more with launches
that begin when those before them are over), what the arithmetic contract
costs (the products chosen when the model was loaded against the fastest for
each number of rows, whether or not a row's bits depend on its company),
and transformers under torch.compile with CUDA graphs. Writes
DIR/gpu-engine-DATE.json and .md. A bound is bytes of weights and of keys and
values over the bytes a second just measured; for prompts, operations over the
operations a second just measured.

`--device cpu` and a shape "tiny" are to try the script where there is no GPU,
transformers too where it is installed. What could not be measured is said in
the table.
"""

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCHES = (1, 32, 128, 256)
CONTEXT = 1024
PROMPT = 2048

QWEN = dict(model_type="qwen2", architectures=["Qwen2ForCausalLM"],
            rope_theta=1e6, rms_norm_eps=1e-6)
LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"],
             rope_theta=5e5, rms_norm_eps=1e-5)
SHAPES = {
    "tiny": dict(QWEN, hidden_size=64, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=128, vocab_size=512,
                 tie_word_embeddings=True),
    "Qwen2.5-0.5B": dict(QWEN, hidden_size=896, num_hidden_layers=24,
                         num_attention_heads=14, num_key_value_heads=2,
                         intermediate_size=4864, vocab_size=151936,
                         tie_word_embeddings=True),
    "Qwen2.5-7B": dict(QWEN, hidden_size=3584, num_hidden_layers=28,
                       num_attention_heads=28, num_key_value_heads=4,
                       intermediate_size=18944, vocab_size=152064,
                       tie_word_embeddings=False),
    "Llama-3-8B": dict(LLAMA, hidden_size=4096, num_hidden_layers=32,
                       num_attention_heads=32, num_key_value_heads=8,
                       intermediate_size=14336, vocab_size=128256,
                       tie_word_embeddings=False),
}


# -- models -------------------------------------------------------------------

def tensors_of(shape):
    """Names and shapes of all tensors, as Hugging Face has them."""
    hidden, wide = shape["hidden_size"], shape["intermediate_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    yield "model.embed_tokens.weight", (shape["vocab_size"], hidden)
    for layer in range(shape["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "post_attention_layernorm.weight", (hidden,)
        for name, rows in ("q", hidden), ("k", keys), ("v", keys):
            yield f"{at}self_attn.{name}_proj.weight", (rows, hidden)
            if shape["model_type"] == "qwen2":
                yield f"{at}self_attn.{name}_proj.bias", (rows,)
        yield at + "self_attn.o_proj.weight", (hidden, hidden)
        yield at + "mlp.gate_proj.weight", (wide, hidden)
        yield at + "mlp.up_proj.weight", (wide, hidden)
        yield at + "mlp.down_proj.weight", (hidden, wide)
    yield "model.norm.weight", (hidden,)
    if not shape["tie_word_embeddings"]:
        yield "lm_head.weight", (shape["vocab_size"], hidden)


def write_tokenizer(folder):
    """256 tokens, one per byte: prompts are ids here."""
    alphabet = [chr(c) for c in (*range(33, 127), *range(161, 173),
                                 *range(174, 256))]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                          "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {c: i for i, c in
                                           enumerate(alphabet)},
                  "merges": []}}))


def make_model(folder, shape):
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({
        **shape, "hidden_act": "silu", "torch_dtype": "bfloat16",
        "max_position_embeddings": 32768, "eos_token_id": 0,
        "bos_token_id": 0}))
    sizes = [(name, of, int(np.prod(of))) for name, of in tensors_of(shape)]
    header, at = {}, 0
    for name, of, count in sizes:
        header[name] = {"dtype": "BF16", "shape": list(of),
                        "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # One block of random numbers again and again: only speed is looked at.
    block = np.random.default_rng(7).normal(0, 0.02, 1 << 22)
    block = (block.astype(np.float32).view(np.uint32) >> 16).astype("<u2")
    ones = np.full(1 << 16, 0x3f80, "<u2")
    with (folder / "model.safetensors").open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, _, left in sizes:
            source = ones if "norm" in name else block
            while left > 0:
                part = source[:left]
                out.write(part)
                left -= len(part)


# -- what is measured ---------------------------------------------------------

def timed(torch, work, device="cuda", repeats=20):
    """Seconds of one call, the least of some after two that warm up."""
    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    best = None
    for number in range(repeats + 2):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        seconds = time.perf_counter() - begin
        if number >= 2:
            best = seconds if best is None else min(best, seconds)
    return best


def ceilings():
    """Bytes a second of a pure read, operations a second of a product."""
    import torch
    read = torch.ones(1 << 32, dtype=torch.uint8, device="cuda").view(
        torch.int64)
    bytes_s = read.numel() * 8 / timed(torch, lambda: read.sum())
    del read
    n = 8192
    a = torch.randn(n, n, dtype=torch.bfloat16, device="cuda")
    b = torch.randn(n, n, dtype=torch.bfloat16, device="cuda")
    operations_s = 2 * n ** 3 / timed(torch, lambda: a @ b)
    del a, b
    torch.cuda.empty_cache()  # the engine is another process
    return {"device": torch.cuda.get_device_name(),
            "read_bytes_s": bytes_s, "operations_s": operations_s}


def run_engine(program, folder, device, small, cache, early="1",
               batches=BATCHES, prompt=PROMPT):
    more = (["--batches", "1,2", "--context", "32", "--prompt", "64",
             "--steps", "4"] if small else
            ["--batches", ",".join(map(str, batches)), "--context",
             str(CONTEXT), "--prompt", str(prompt)])
    done = subprocess.run([program, folder, "--device", device, *more],
                          capture_output=True, text=True, timeout=400,
                          env={**os.environ, "TROUPE_CACHE": str(cache),
                               "TROUPE_CUDA_EARLY_LAUNCHES": early})
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"status {done.returncode}")
    return json.loads(done.stdout)


def chosen_products(cache):
    """What cuda/product_cache.cpp writes: {(outputs, columns): {(role, rows):
    (ns chosen, ns fastest)}}."""
    out = {}
    for path in cache.glob("gpu/products-*.txt"):
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) < 5 or not words[0].isdigit():
                continue
            times = out.setdefault((int(words[0]), int(words[1])), {})
            for one in words[5:]:
                rows, seconds = one.split(":")
                times[words[3], int(rows)] = tuple(map(int, seconds.split("/")))
    return out


def run_torch(folder, batches, device):
    """Seconds of a decoding step of transformers with a static cache, compiled
    with CUDA graphs: (batch, seconds), one after the other."""
    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16).to(device)
    heads = model.config.num_key_value_heads
    head = model.config.hidden_size // model.config.num_attention_heads
    for batch in batches:
        torch.compiler.reset()
        cache = transformers.StaticCache(config=model.config,
                                         max_cache_len=CONTEXT + 128)
        # A cache that is made in a compiled step is copied in each of them.
        cache.early_initialization(batch, heads, head, torch.bfloat16, device)
        for layer in cache.layers:
            layer.cumulative_length.fill_(CONTEXT)
        step = torch.compile(model.forward, mode="reduce-overhead",
                             fullgraph=True)
        ids = torch.ones(batch, 1, dtype=torch.long, device=device)

        def decode():
            with torch.no_grad():
                step(input_ids=ids, past_key_values=cache, use_cache=True)

        seconds = timed(torch, decode, device, repeats=30)
        assert cache.get_seq_length() == CONTEXT + 32, "other contexts"
        yield batch, seconds
        del cache, step
        if device == "cuda":
            torch.cuda.empty_cache()


# -- bounds and tables --------------------------------------------------------

def kv_bytes(shape):
    """Of one token, in f16."""
    head = shape["hidden_size"] // shape["num_attention_heads"]
    return 2 * 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * head


def operations(shape, tokens):
    """Of a prompt: products with all matrices but the table of embeddings, and
    half a square of attention."""
    matrices = sum(int(np.prod(of)) for name, of in tensors_of(shape)
                   if len(of) == 2 and "embed" not in name
                   and "lm_head" not in name)
    attention = (2 * shape["num_hidden_layers"] * shape["hidden_size"]
                 * tokens * tokens)
    return 2 * matrices * tokens + attention


def products_of(shape):
    """(outputs, columns) of the products of one token, and how many of each."""
    hidden, wide = shape["hidden_size"], shape["intermediate_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    layers = shape["num_hidden_layers"]
    return [((hidden + 2 * keys, hidden), layers), ((hidden, hidden), layers),
            ((2 * wide, hidden), layers), ((hidden, wide), layers),
            ((shape["vocab_size"], hidden), 1)]


def contract_rows(name, shape, chosen):
    """What all products of a step of so many rows take; those of the output
    layer only where all rows are outputs."""
    counts = {key for times in chosen.values() for key in times}
    for role, rows in sorted(counts, key=lambda one: (one[0], one[1])):
        totals = [0, 0]
        for product, count in products_of(shape):
            if role == "prompt" and product[0] == shape["vocab_size"]:
                continue
            times = chosen.get(product, {}).get((role, rows))
            if times is None:
                break
            totals = [total + count * ns for total, ns in zip(totals, times)]
        else:
            yield {"model": name, "role": role, "rows": rows,
                   "chosen_ms": totals[0] / 1e6, "fastest_ms": totals[1] / 1e6}


def rows_of(name, shape, seen, top, beside):
    for one in seen["decode"]:
        batch, step = one["batch"], one["step_s"]
        read = seen["weight_bytes"] + batch * seen["context"] * kv_bytes(shape)
        bound = read / top["read_bytes_s"] if top else None
        yield {"model": name, "what": f"decode, batch {batch}",
               "ms": step * 1e3, "tokens_s": batch / step,
               "of_bound": bound / step if bound else None,
               "gap_us": one["gap_s"] * 1e6 if "gap_s" in one else None,
               "torch_ms": beside.get(batch, 0) * 1e3 or None}
    if "apart_s" in seen:
        yield {"model": name, "what": "decode, batch 1, launches apart",
               "ms": seen["apart_s"] * 1e3, "tokens_s": 1 / seen["apart_s"],
               "of_bound": None, "gap_us": None, "torch_ms": None}
    bound = (operations(shape, seen["prompt"]) / top["operations_s"]
             if top else None)
    seconds = seen["first_token_s"]
    yield {"model": name, "what": f"prompt of {seen['prompt']}",
           "ms": seconds * 1e3, "tokens_s": seen["prompt"] / seconds,
           "of_bound": bound / seconds if bound else None, "gap_us": None,
           "torch_ms": None}


def contract_table(rows):
    lines = ["", "What the arithmetic contract costs: all products of a step, "
             "as chosen and by the fastest for its number of rows alone.", "",
             "| model | role | rows | chosen, ms | fastest, ms | more |",
             "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {r['model']} | {r['role']} | {r['rows']} | "
              f"{r['chosen_ms']:.3f} | {r['fastest_ms']:.3f} | "
              f"{r['chosen_ms'] / r['fastest_ms'] - 1:.0%} |" for r in rows]
    return "\n".join(lines) + "\n" if rows else ""


def table(rows, top, missing):
    def cell(value, form):
        return "-" if value is None else format(value, form)
    lines = [f"Device: {top['device'] if top else 'none measured'}."]
    if top:
        lines.append(f"A pure read: {top['read_bytes_s'] / 1e12:.2f} TB/s; a "
                     f"product of 8192^3 in bf16: "
                     f"{top['operations_s'] / 1e12:.0f} TFLOP/s.")
    lines += [f"Not measured: {what}." for what in missing]
    lines += ["", "| model | what | ms | tokens/s | of the bound | "
              "between steps, us | torch.compile, ms |",
              "| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {r['model']} | {r['what']} | {r['ms']:.3f} | "
              f"{r['tokens_s']:.0f} | {cell(r['of_bound'], '.0%')} | "
              f"{cell(r['gap_us'], '.1f')} | {cell(r['torch_ms'], '.3f')} |"
              for r in rows]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default=ROOT
                        / "build/release/bench/bench_gpu_engine")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append")
    parser.add_argument("--out", type=pathlib.Path,
                        default=ROOT / "bench/results")
    parser.add_argument("--work", type=pathlib.Path,
                        default=ROOT / "build/bench/gpu-models")
    given = parser.parse_args()
    missing, rows, contract, top = [], [], [], None

    def attempt(what, work):
        try:
            return work()
        except Exception as why:
            missing.append(f"{what} ({type(why).__name__}: "
                           f"{str(why).splitlines()[0] if str(why) else ''})")
            print(f"{what}: {why}", file=sys.stderr)
            return None

    given.out.mkdir(parents=True, exist_ok=True)
    to = given.out / f"gpu-engine-{datetime.date.today().isoformat()}"

    def save(rows):
        to.with_suffix(".json").write_text(json.dumps(
            {"ceilings": top, "rows": rows, "contract": contract,
             "missing": missing}, indent=1) + "\n")
        text = table(rows, top, missing) + contract_table(contract)
        to.with_suffix(".md").write_text(text)
        return text

    if given.device == "cuda":
        top = attempt("what the GPU can do", ceilings)
    for name in given.only or [name for name in SHAPES if name != "tiny"]:
        folder = given.work / name
        cache = given.work / f"{name}-cache"  # so that all is tried now
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
        make_model(folder, SHAPES[name])
        seen = attempt(f"the engine with {name}", lambda: run_engine(
            given.engine, folder, given.device, name == "tiny", cache))
        if seen and given.device == "cuda":
            costs = list(contract_rows(name, SHAPES[name],
                                       chosen_products(cache)))
            contract += costs
            if not costs:
                missing.append(f"what the contract costs with {name} (no "
                               "product was chosen)")
            apart = attempt(
                f"launches one after the other with {name}",
                lambda: run_engine(given.engine, folder, given.device, False,
                                   cache, early="0", batches=[1], prompt=16))
            if apart:
                seen["apart_s"] = apart["decode"][0]["step_s"]
        beside = {}

        def rows_so_far():
            return rows + (list(rows_of(name, SHAPES[name], seen, top, beside))
                           if seen else [])

        def compare():
            batches = BATCHES if name != "tiny" else (1, 2)
            for batch, seconds in run_torch(folder, batches, given.device):
                beside[batch] = seconds
                save(rows_so_far())

        save(rows_so_far())  # what comes next may take more time than there is
        if given.device == "cuda" or importlib.util.find_spec("torch"):
            attempt(f"torch.compile with {name}", compare)
        rows = rows_so_far()
        shutil.rmtree(folder)
    print(save(rows))
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
