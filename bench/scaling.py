"""How soon the number of replicas follows the load, as a client sees it.

  decision   from a step of 1 to 16 streams to the autoscaler's order, by
             /api/status, asked every 20 ms
  serving    from that step until the last replica serves
  wake       from the first request for a model that sleeps to its first token:
             the birth of a replica from weights in the page cache
  awake      the same of the next request, which waits for nothing

  bench/scaling.py [--binary build/release/troupe] [--rounds 7]
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import cluster as e2e  # noqa: E402
import httpx  # noqa: E402

STEP, REPLICAS, EACH = 16, 4, 4
BODY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 64,
        "ignore_eos": True, "stream": True}


def calibration():
    """Millions of additions a second: how fast the machine is now."""
    begin, count = time.perf_counter(), 0
    for number in range(2_000_000):
        count += number
    return 2 / (time.perf_counter() - begin)


def config(**scaling):
    return e2e.serve_config(e2e.model_config(
        engine_kwargs={"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20},
        deployment_config={"autoscaling_config": {
            "target_ongoing_requests": EACH, "downscale_delay_s": 0.5,
            **scaling}}), troupe={"threads_per_replica": 1})


def stream(url, is_over):
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        while not is_over.is_set():
            answer = http.post("/v1/completions", json=BODY)
            assert answer.status_code == 200, answer.text


def first_token(cluster):
    begin = time.perf_counter()
    with cluster.http.stream("POST", "/v1/completions", json=BODY) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                return time.perf_counter() - begin
    raise AssertionError("no token")


def wait(condition):
    begin = time.perf_counter()
    while not condition():
        assert time.perf_counter() - begin < 120
        time.sleep(0.02)


def measure_step(cluster):
    wait(lambda: len(cluster.replicas()) == 1)
    is_over = threading.Event()
    threads = [threading.Thread(target=stream, args=(cluster.url, is_over))
               for _ in range(STEP)]
    threads[0].start()
    time.sleep(2)
    begin = time.perf_counter()
    for thread in threads[1:]:
        thread.start()
    wait(lambda: cluster.model()["replicas_wanted"] == REPLICAS)
    decided = time.perf_counter() - begin
    wait(lambda: len(cluster.replicas()) == REPLICAS)
    serving = time.perf_counter() - begin
    is_over.set()
    for thread in threads:
        thread.join()
    return decided, serving


def measure_wake(cluster):
    wait(lambda: not cluster.replicas()
         and cluster.model()["replicas_wanted"] == 0)
    return first_token(cluster), first_token(cluster)


def rounds(folder, name, scaling, measure, count):
    one = e2e.Cluster(folder / name, config(**scaling)).start(ready=False)
    try:
        return [measure(one) for _ in range(count)]
    finally:
        one.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, default=e2e.BINARY)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    e2e.BINARY = arguments.binary.resolve()
    before = calibration()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        steps = rounds(folder, "step", {"max_replicas": REPLICAS}, measure_step,
                       arguments.rounds)
        wakes = rounds(folder, "wake", {"min_replicas": 0}, measure_wake,
                       arguments.rounds)
    columns = dict(zip(("decision", "serving"), zip(*steps)))
    columns |= dict(zip(("wake", "awake"), zip(*wakes)))
    table = {name: {"median_s": round(statistics.median(values), 3),
                    "least_s": round(min(values), 3),
                    "most_s": round(max(values), 3)}
             for name, values in columns.items()}
    print(json.dumps({"rounds": arguments.rounds, **table,
                      "additions_M_per_s": [round(before, 1),
                                            round(calibration(), 1)]},
                     indent=1))


if __name__ == "__main__":
    main()
