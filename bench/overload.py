"""What ten times too many requests do, and what one tenant's flood does to
another.

  overload   open loop at ten times the rate that a closed loop of 32 clients
             reaches, each request with a time limit: answers in time per second
             beside the closed loop's, in turns; how long refusals take as the
             client sees them; how soon an answer takes again what it took
             before; the memory of the process that refuses
  tenants    four clients of one key beside eight of another, and beside eighty:
             the p95 of the first one's answers, in turns
  limited    the four clients alone, so that seats are empty, and beside eighty
             of another key that has one choice at the replica at once
             (choices_per_replica), in turns

  bench/overload.py [--binary build/release/troupe] [--rounds 7] [--seconds 8]

Requests are written by hand on plain sockets: the client shares two cores with
what it measures.
"""

import argparse
import asyncio
import json
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import cluster as e2e  # noqa: E402

LIMIT_S = 4
KEYS = [{"key": "sk-quiet-tenant", "name": "quiet"},
        {"key": "sk-loud-tenant", "name": "loud"}]


def calibration():
    """Millions of additions a second: how fast the machine is now."""
    begin, count = time.perf_counter(), 0
    for number in range(2_000_000):
        count += number
    return 2 / (time.perf_counter() - begin)


def percentile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)]


def request(key, tokens, limit_s=LIMIT_S):
    body = json.dumps({"prompt": "Once upon a time there was", "max_tokens": tokens,
                       "temperature": 0, "ignore_eos": True}).encode()
    return (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\n"
            f"x-request-timeout-ms: {int(limit_s * 1000)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def ask(port, what):
    """Status and seconds. The time begins when the connection stands, as it
    does for a client that keeps its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begin = time.perf_counter()
    try:
        writer.write(what)
        answer = await reader.read()
        return int(answer.split(b" ", 2)[1]), time.perf_counter() - begin
    finally:
        writer.close()


async def closed(port, what, clients, seconds):
    end = time.perf_counter() + seconds
    seen = []

    async def one():
        while time.perf_counter() < end:
            seen.append(await ask(port, what))

    await asyncio.gather(*(one() for _ in range(clients)))
    return seen


async def open_loop(port, what, rate, seconds):
    seen, tasks = [], []
    begin = time.perf_counter()

    async def one():
        seen.append(await ask(port, what))

    for number in range(int(rate * seconds)):
        wait = begin + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return seen


def goodput(seen, seconds):
    return sum(status == 200 and took <= LIMIT_S for status, took in seen) / seconds


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as lines:
        return int(next(line for line in lines
                        if line.startswith("VmRSS")).split()[1]) / 1024


async def recovered(port, what, usual):
    """From now until an answer takes no more than twice the usual time."""
    begin = time.perf_counter()
    while True:
        status, took = await ask(port, what)
        if status == 200 and took <= 2 * usual:
            return time.perf_counter() - begin - took
        assert time.perf_counter() - begin < 60, (status, took, usual)


async def overload(cluster, options):
    short = request(KEYS[0]["key"], 32)
    rounds = []
    await closed(cluster.port, short, 32, options.seconds)
    for _ in range(options.rounds):
        await asyncio.sleep(1)
        usual = statistics.median(
            [(await ask(cluster.port, short))[1] for _ in range(3)])
        peak = goodput(await closed(cluster.port, short, 32, options.seconds),
                       options.seconds)
        before = resident_mib(cluster.process.pid)
        seen = await open_loop(cluster.port, short, 10 * peak, options.seconds)
        after = resident_mib(cluster.process.pid)
        back = await recovered(cluster.port, short, usual)
        refused = [took for status, took in seen if status in (429, 503)]
        late = sum(status == 408 for status, _ in seen)
        rounds.append({
            "peak_per_s": peak, "goodput_per_s": goodput(seen, options.seconds),
            "asked": len(seen), "refused": len(refused), "timed_out": late,
            "refusal_p50_ms": percentile(refused, 0.5) * 1e3,
            "refusal_p99_ms": percentile(refused, 0.99) * 1e3,
            "recovered_s": back, "grown_mib": after - before,
            "additions_m_per_s": calibration()})
        print(json.dumps(rounds[-1]), flush=True)
    return rounds


async def tenants(cluster, options, few, many):
    quiet = request(KEYS[0]["key"], 32, 60)
    loud = request(KEYS[1]["key"], 32, 60)
    rounds = []

    async def beside(clients):
        own, other = await asyncio.gather(
            closed(cluster.port, quiet, 4, options.seconds),
            closed(cluster.port, loud, clients, options.seconds))
        assert all(status == 200 for status, _ in own + other)
        return (percentile([took for _, took in own], 0.95),
                len(own) / options.seconds, len(other) / options.seconds)

    for _ in range(options.rounds):
        calm, flooded = await beside(few), await beside(many)
        rounds.append({f"beside_{few}_ms": calm[0] * 1e3,
                       f"beside_{many}_ms": flooded[0] * 1e3,
                       "moved": flooded[0] / calm[0],
                       "answers_per_s": [*calm[1:], *flooded[1:]],
                       "additions_m_per_s": calibration()})
        print(json.dumps(rounds[-1]), flush=True)
    return rounds


def config(sequences, **loud):
    return e2e.serve_config(e2e.model_config(engine_kwargs={
        "max_model_len": 512, "kv_cache_memory_bytes": 256 << 20,
        **({"max_num_seqs": sequences} if sequences else {})}),
        troupe={"api_keys": [KEYS[0], {**KEYS[1], **loud}]})


def median(rounds, name):
    return statistics.median(one[name] for one in rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    if options.binary:
        e2e.BINARY = options.binary.resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        cluster = e2e.Cluster(folder / "overload", config(0)).start()
        first = asyncio.run(overload(cluster, options))
        cluster.stop()
        cluster = e2e.Cluster(folder / "tenants", config(8)).start()
        second = asyncio.run(tenants(cluster, options, 8, 80))
        cluster.stop()
        cluster = e2e.Cluster(folder / "limited",
                              config(8, choices_per_replica=1)).start()
        third = asyncio.run(tenants(cluster, options, 0, 80))
        cluster.stop()
    ratios = [one["goodput_per_s"] / one["peak_per_s"] for one in first]
    print(f"goodput at ten times the peak's rate: {statistics.median(ratios):.2f} "
          f"of the peak ({min(ratios):.2f}-{max(ratios):.2f}), "
          f"{median(first, 'peak_per_s'):.1f} answers/s")
    print(f"refusals: p50 {median(first, 'refusal_p50_ms'):.1f} ms, "
          f"p99 {median(first, 'refusal_p99_ms'):.1f} ms; recovered after "
          f"{median(first, 'recovered_s'):.2f} s; memory grew by "
          f"{max(one['grown_mib'] for one in first):.0f} MiB at most")
    for what, measured in [("beside a flood", second),
                           ("from alone to beside a limited flood", third)]:
        moved = [one["moved"] for one in measured]
        print(f"another's p95 {what}: x{statistics.median(moved):.2f} "
              f"({min(moved):.2f}-{max(moved):.2f})")


if __name__ == "__main__":
    main()
