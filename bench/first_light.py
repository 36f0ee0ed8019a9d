"""Troupe and llama.cpp in turns; see first_light.sh, which builds both.

Ours is measured as a client sees it (HTTP, streaming), so the serving layer
counts against us; llama.cpp by its own llama-batched-bench, without a server.
Both: greedy, end tokens ignored, prompts that no cache knows, two threads.

  prefill    512 / time to the first token of a 512-token prompt
  decode     tokens after the first / their time, 128-token prompt, 64 out
  8 streams  the same for 8 prompts at once, all tokens together
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BENCH = ROOT / "build/bench"
MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
THREADS = 2
PREFILL, PROMPT, OUT, STREAMS = 512, 128, 64, 8
MEASURES = ("prefill", "decode", "8 streams")

# The peer's settings that may matter; the best for each measure is used.
PEER_BUILDS = ("openmp", "pool")
PEER_FLAGS = [["-fa", fa, "-b", "2048", "-ub", ub, "--poll", poll]
              for fa in ("on", "off") for ub in ("512", "128")
              for poll in ("50", "100")]
# libgomp's default may sleep at every barrier.
PEER_ENV = {**os.environ, "OMP_WAIT_POLICY": "active",
            "OMP_NUM_THREADS": str(THREADS)}


class Ours:
    """A cluster of one replica, started for the time of the measurement."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        config = folder / "serve.yaml"
        config.write_text(json.dumps({
            "applications": [{
                "name": "llm", "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [{
                    "model_loading_config": {"model_id": "m",
                                             "model_source": str(MODEL)},
                    "accelerator_config": {"kind": "cpu"},
                    "engine_kwargs": {"max_model_len": 2048}}]}}],
            "troupe": {"threads_per_replica": THREADS}}))
        log = folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [ROOT / "build/release/troupe", "run", config, "--port", "0",
                 "--admin-port", "0", "--state-dir", folder / "state"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while not (found := re.search(r"serving http://\S+:(\d+)",
                                      log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"troupe did not start:\n{log.read_text()}")
            time.sleep(0.05)
        self.port = int(found[1])
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        self.folder.cleanup()

    def stream(self, tokens, out):
        """Times of the arrival of each token, from the sending."""
        prompt = [random.randrange(100, 49000) for _ in range(tokens)]
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        begin = time.perf_counter()
        client.request(
            "POST", "/v1/completions",
            json.dumps({"prompt": prompt, "max_tokens": out, "temperature": 0,
                        "ignore_eos": True, "stream": True,
                        "return_token_ids": True}),
            {"Content-Type": "application/json"})
        answer = client.getresponse()
        if answer.status != 200:
            sys.exit(answer.read().decode())
        times = []
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            frame = json.loads(line[6:])
            if "error" in frame:
                sys.exit(line.decode())
            now = time.perf_counter()
            for choice in frame["choices"]:
                times += [now] * len(choice.get("token_ids") or [])
        client.close()
        assert len(times) == out, f"{len(times)} tokens, not {out}"
        return begin, times

    def measure(self):
        begin, times = self.stream(PREFILL, 1)
        prefill = PREFILL / (times[0] - begin)
        _, times = self.stream(PROMPT, OUT)
        decode = (OUT - 1) / (times[-1] - times[0])
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            runs = list(pool.map(lambda _: self.stream(PROMPT, OUT)[1],
                                 range(STREAMS)))
        # From when all decode: the last one's first token.
        start = max(times[0] for times in runs)
        end = max(times[-1] for times in runs)
        tokens = sum(sum(1 for t in times if t > start) for times in runs)
        return {"prefill": prefill, "decode": decode,
                "8 streams": tokens / (end - start)}


def run_peer(build, flags, arguments):
    out = subprocess.run(
        [BENCH / "peer" / build / "bin/llama-batched-bench", "-m", MODEL,
         "-t", str(THREADS), "-tb", str(THREADS), "-c", "4096",
         "--output-format", "jsonl", *flags, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=PEER_ENV,
        timeout=600, text=True)
    rows = [json.loads(line) for line in out.stdout.splitlines()
            if line.startswith("{")]
    if not rows:
        sys.exit(f"llama-batched-bench {flags} gave nothing")
    return rows[-1]


def measure_peer(measure, build, flags):
    if measure == "prefill":
        return run_peer(build, flags, ["-npp", str(PREFILL), "-ntg", "1",
                                       "-npl", "1"])["speed_pp"]
    streams = 1 if measure == "decode" else STREAMS
    return run_peer(build, flags, ["-npp", str(PROMPT), "-ntg", str(OUT),
                                   "-npl", str(streams)])["speed_tg"]


def best_settings(measure, rounds):
    """The peer's fastest (build, flags): all once, then the best three again."""
    candidates = [(build, tuple(flags))
                  for build, flags in itertools.product(PEER_BUILDS, PEER_FLAGS)]
    seen = {one: [measure_peer(measure, *one)] for one in candidates}
    finals = sorted(candidates, key=lambda one: -seen[one][0])[:3]
    for _ in range(rounds):
        for one in finals:
            seen[one].append(measure_peer(measure, *one))
    best = max(finals, key=lambda one: statistics.median(seen[one]))
    for one in sorted(candidates, key=lambda one: -max(seen[one])):
        print(f"  {measure:10} {one[0]:7} {' '.join(one[1]):38} "
              + " ".join(f"{value:.0f}" for value in seen[one]))
    return best


def calibration():
    return subprocess.run([BENCH / "calibrate"], capture_output=True, text=True,
                          check=True).stdout.strip()


def report(pairs, best, rates):
    load = os.getloadavg()[0]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), "unknown")
    lines = [f"{len(pairs)} pairs in turns on {cpu}, {THREADS} threads; "
             f"additions per core {min(rates)} to {max(rates)} G/s; load at the "
             f"end {load:.1f}.", "",
             "| measure | Troupe (HTTP), tok/s | llama.cpp, tok/s | ratio, "
             "median (range) | llama.cpp's flags |",
             "| --- | --- | --- | --- | --- |"]
    for name in MEASURES:
        ours = [pair[0][name] for pair in pairs]
        theirs = [pair[1][name] for pair in pairs]
        ratios = [a / b for a, b in zip(ours, theirs)]
        lines.append(
            f"| {name} | {statistics.median(ours):.0f} | "
            f"{statistics.median(theirs):.0f} | "
            f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-"
            f"{max(ratios):.2f}) | {best[name][0]}, "
            f"`{' '.join(best[name][1])}` |")
    gains = [pair[0]["8 streams"] / pair[0]["decode"] for pair in pairs]
    lines += ["", f"8 streams against one, Troupe: "
              f"**{statistics.median(gains):.2f}** "
              f"({min(gains):.2f}-{max(gains):.2f})."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--search-rounds", type=int, default=2)
    args = parser.parse_args()
    if args.pairs < 7:
        sys.exit("fewer than 7 pairs say nothing on a shared machine")
    busy, cores = os.getloadavg()[0], os.cpu_count()
    if busy > cores / 4:
        print(f"The load is {busy:.1f} on {cores} cores before anything has "
              "begun: llama.cpp's threads wait for each other at every step "
              "and suffer most from it. Figures from a quiet machine only.")
    print("Looking for llama.cpp's best flags (tok/s):")
    best = {name: best_settings(name, args.search_rounds) for name in MEASURES}
    pairs, rates = [], []
    with Ours() as ours:
        ours.measure()  # pages and caches warm, as the peer's own warm-up
        for number in range(1, args.pairs + 1):
            before = calibration()
            mine = ours.measure()
            theirs = {name: measure_peer(name, *best[name])
                      for name in MEASURES}
            after = calibration()
            rates += [float(one) for one in f"{before} {after}".split()]
            pairs.append((mine, theirs))
            print(f"pair {number} (additions/core before {before}, after "
                  f"{after} G/s): " + ", ".join(
                      f"{name} {mine[name]:.0f}/{theirs[name]:.0f} = "
                      f"{mine[name] / theirs[name]:.2f}" for name in MEASURES),
                  flush=True)
    text = report(pairs, best, rates)
    (BENCH / "first_light.md").write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
