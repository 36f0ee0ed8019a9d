"""Runs `troupe run` as a user would, and looks at it from outside."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(
    os.environ.get("TROUPE_BINARY", ROOT / "build/release/troupe")).resolve()
WEIGHTS = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
SERVING = re.compile(r"serving http://\S+:(\d+) \(admin: http://\S+:(\d+)\)")
DEADLINE_S = 60  # an end to every wait; never what is measured


def wait_for(condition, what, seconds=DEADLINE_S):
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {seconds} s: {what}"
        time.sleep(0.02)


def _ports():
    """Below those that the system gives, and apart for each process of tests:
    nobody else takes them meanwhile."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first, each = 20_000, 1_000
    while True:
        yield from range(first + int(worker) * each,
                         first + (int(worker) + 1) * each)


_next_ports = _ports()


def free_ports(count):
    """Ports that a server has again after it was killed."""
    out = []
    for port in itertools.islice(_next_ports, 1_000):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        out.append(port)
        if len(out) == count:
            return out
    raise AssertionError("no port is free")


def model_config(model_id="smollm2", **more):
    """An entry of llm_configs with the real weights, on the CPU."""
    return {"model_loading_config": {"model_id": model_id,
                                     "model_source": str(WEIGHTS)},
            "accelerator_config": {"kind": "cpu"}, **more}


def serve_config(*models, **top):
    """A file for `troupe run`. JSON is YAML too."""
    return json.dumps({
        "applications": [{
            "name": "llm", "route_prefix": "/",
            "import_path": "ray.serve.llm:build_openai_app",
            "args": {"llm_configs": list(models)}}],
        **top}, indent=1)


def run_verb(*arguments, **more):
    return subprocess.run([BINARY, *map(str, arguments)], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=DEADLINE_S, **more)


@dataclasses.dataclass(frozen=True)
class Process:
    """A process by id and start time: ids are used again, pairs are not."""
    pid: int
    started: int

    def fields(self):
        try:
            text = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = text[text.rindex(")") + 2:].split()
        return fields if int(fields[19]) == self.started else None

    def lives(self):
        fields = self.fields()
        return fields is not None and fields[0] not in "ZX"

    def parent(self):
        """Its id; 0 if the process is gone."""
        fields = self.fields()
        return int(fields[1]) if fields else 0

    def threads(self):
        return int(self.fields()[17])

    def listening_inodes(self):
        try:
            links = list(pathlib.Path(f"/proc/{self.pid}/fd").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return  # it has ended
        for link in links:
            try:
                found = re.match(r"socket:\[(\d+)\]", os.readlink(link))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if found:
                yield int(found[1])


def process(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return Process(pid, int(text[text.rindex(")") + 2:].split()[19]))


def brought(state):
    """(name, process) of each node that the head with that state directory
    brought, or that is to become one."""
    mark = str(state / "nodes").encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
            if b"--node-name" in line and any(
                    part.startswith(mark) for part in line):
                name = line[line.index(b"--node-name") + 1].decode()
                found.append((name, process(int(entry.name))))
        except (FileNotFoundError, ProcessLookupError):
            continue
    # What a node is about to start looks like itself for a moment.
    nodes = {one.pid for _, one in found}
    return [(name, one) for name, one in found
            if one.lives() and one.parent() not in nodes]


def family(pid):
    """The process and all below it."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(text[text.rindex(")") + 2:].split()[1]),
                               []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        one = left.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(process(one))  # else it has just ended
        left += parents.get(one, [])
    return found


class Cluster:
    """`troupe run` on ports of its own, with a state directory of its own."""

    def __init__(self, folder, config, *arguments, state=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "serve.yaml"
        self.config.write_text(config)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "run", self.config, "--port", "0", "--admin-port", "0",
                 "--state-dir", state or folder / "state", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
        self.port = self.admin_port = None

    def said(self):
        return self.log.read_text(errors="replace")

    def _serving(self):
        assert self.process.poll() is None, self.said()
        return SERVING.search(self.said())

    def start(self, ready=True):
        """Waits for the ports and, if so wished, for a model that answers."""
        found = wait_for(self._serving, f"no ports; it said:\n{self.said()}")
        self.port, self.admin_port = int(found[1]), int(found[2])
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE_S,
                                 trust_env=False)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{self.admin_port}",
                                  timeout=DEADLINE_S, trust_env=False)
        if ready:
            wait_for(lambda: self.http.get("/-/healthz").status_code == 200,
                     "not ready")
        return self

    def wait_for_models(self, *names):
        """Until the router can ask each of them; `start` waits for one."""
        for name in names:
            wait_for(lambda: self.http.post("/tokenize", json={
                "model": name, "prompt": "a"}).status_code == 200,
                f"{name} is not ready; it said:\n{self.said()}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def chat(self, content="What is the capital of France?", **more):
        body = {"messages": [{"role": "user", "content": content}],
                "temperature": 0, "max_tokens": 8, **more}
        return self.http.post("/v1/chat/completions", json=body)

    def complete(self, prompt="Once upon a time", **more):
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 8, **more}
        return self.http.post("/v1/completions", json=body)

    def stream_with(self, body, disturb):
        """What a stream of completions says while, after its first piece,
        something happens."""
        text = ""
        with self.http.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            pieces = answer.iter_text()
            text += next(pieces)
            disturb()
            text += "".join(pieces)
        return "".join(chunk["choices"][0]["text"] for chunk in chunks(text))

    def status(self):
        answer = self.admin.get("/api/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def model(self, name="smollm2"):
        return next(model for model in self.status()["models"]
                    if model["model"] == name)

    def replicas(self, name="smollm2"):
        return [replica for replica in self.model(name)["replicas"]
                if replica["phase"] == "ready"]

    def load(self):
        (replica,) = self.replicas()
        return replica["load"]

    def is_idle(self):
        load = self.load()
        return load["running"] == load["waiting"] == 0

    def metrics(self):
        """Sums of all samples, by name."""
        sums = {}
        for line in self.admin.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def family(self):
        return family(self.process.pid)

    def stop(self, number=signal.SIGTERM):
        """Ends it and returns its exit status; nothing of it may be left."""
        everyone = self.family() if self.process.poll() is None else []
        self.process.send_signal(number)
        try:
            status = self.process.wait(DEADLINE_S)
            wait_for(lambda: not any(p.lives() for p in everyone),
                     "processes were left behind", 20)
        finally:
            for one in everyone:
                if one.lives():
                    os.kill(one.pid, signal.SIGKILL)
        return status


def sse(text):
    """The data of the frames of an event stream."""
    frames = text.split("\n\n")
    assert frames.pop() == "", "the last frame is not whole"
    for frame in frames:
        assert frame.startswith("data: ") and "\n" not in frame, frame
        yield frame.removeprefix("data: ")


def chunks(text):
    """The JSON frames of a stream that ended as it should."""
    frames = list(sse(text))
    assert frames.pop() == "[DONE]"
    assert "[DONE]" not in frames
    return [json.loads(frame) for frame in frames]
