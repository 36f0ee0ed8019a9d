"""The only replica is killed under four streams: how long do they stand still?

    bench/only_replica_killed.py [TIMES]

Runs `troupe run` with one replica of the real weights, kills it at about token
45 of 128 of four streams, and checks that each stream is that of an undisturbed
run. Prints the longest gap of each kill, the median and the longest.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = pathlib.Path(os.environ.get("TROUPE_BINARY",
                                     ROOT / "build/release/troupe"))
WEIGHTS = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
STREAMS, TOKENS, KILL_AT = 4, 128, 45


def serve(folder):
    config = folder / "serve.yaml"
    config.write_text(json.dumps({
        "troupe": {"restarts_per_minute": 1000, "restart_pause_s": 0},
        "applications": [{
            "name": "llm", "import_path": "ray.serve.llm:build_openai_app",
            "args": {"llm_configs": [{
                "model_loading_config": {"model_id": "smollm2",
                                         "model_source": str(WEIGHTS)},
                "accelerator_config": {"kind": "cpu"}}]}}]}))
    log = (folder / "log").open("w+")
    running = subprocess.Popen(
        [BINARY, "run", config, "--port", "0", "--admin-port", "0",
         "--state-dir", folder / "state"], stdout=log, stderr=log)
    for _ in range(600):
        found = re.search(r"serving http://\S+?:(\d+) \(admin: http://\S+?:(\d+)",
                          (folder / "log").read_text())
        if found:
            return running, int(found[1]), int(found[2])
        time.sleep(0.05)
    raise SystemExit("it does not start: " + (folder / "log").read_text())


def stream(port, seed, times, texts, at_token=None):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    link.request("POST", "/v1/completions", json.dumps({
        "prompt": "The history of the bridge", "max_tokens": TOKENS,
        "seed": seed, "temperature": 0.9, "ignore_eos": True, "stream": True}),
        {"Content-Type": "application/json"})
    answer = link.getresponse()
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        frame = json.loads(line[6:])
        texts.append(frame["choices"][0]["text"])
        times.append(time.monotonic())
        if at_token and len(times) == KILL_AT:
            at_token()


def kill_replica(admin):
    link = http.client.HTTPConnection("127.0.0.1", admin, timeout=30)
    link.request("GET", "/api/status")
    status = json.loads(link.getresponse().read())
    os.kill(status["models"][0]["replicas"][0]["pid"], signal.SIGKILL)


def round_of(port, seed, at_token=None):
    runs = [([], []) for _ in range(STREAMS)]
    threads = [threading.Thread(
        target=stream, args=(port, seed + i, times, texts,
                             at_token if i == 0 else None))
        for i, (times, texts) in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gap = max(b - a for times, _ in runs for a, b in zip(times, times[1:]))
    return gap, ["".join(texts) for _, texts in runs]


def main():
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        running, port, admin = serve(pathlib.Path(folder))
        try:
            gaps = []
            for number in range(times):
                _, expected = round_of(port, 100 * number)
                gap, texts = round_of(port, 100 * number,
                                      lambda: kill_replica(admin))
                assert texts == expected, "a stream differs"
                gaps.append(gap)
                print(f"kill {number + 1}: longest gap {gap:.3f} s, "
                      f"{STREAMS} streams exact")
            print(f"median {statistics.median(gaps):.3f} s, "
                  f"longest {max(gaps):.3f} s, of {times}")
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(60)


if __name__ == "__main__":
    main()
