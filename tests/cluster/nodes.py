"""A cluster of real processes on machines of a wire: starts it, hurts it, looks
at it from outside and says whether all is as it was."""

import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

import client
from cluster import BINARY, WEIGHTS, family, wait_for
from network import Machine

FAULTY = pathlib.Path(os.environ.get(
    "TROUPE_FAULTY_REPLICA", BINARY.parent / "faulty_replica")).resolve()
PORTS = {"join": 6380, "cluster": 6381, "http": 8000, "admin": 8265}
# An end to every wait. What is waited for takes a second or two; nobody's
# machine is so slow that thirty times that would not do.
DEADLINE_S = 60
# Models of the tests stand on nodes with these resources.
SHIPPED = {"shipped": 0.01}  # replicas are `troupe replica`
FAULTY_ONLY = {"faulty": 0.01}  # replicas are `faulty_replica`


def model(name="smollm2", replicas=2, on=SHIPPED, env=None, engine=None,
          **deployment):
    """An entry of llm_configs for the real weights. Dead replicas are started
    again at once, as often as it takes. Steps are short: with more replicas than
    cores, one of 512 rows may take the 2 s after which a replica is taken for
    hung."""
    entry = {
        "model_loading_config": {"model_id": name, "model_source": str(WEIGHTS)},
        "accelerator_config": {"kind": "cpu"},
        "engine_kwargs": {"max_model_len": 1024, "max_num_batched_tokens": 128,
                          "kv_cache_memory_bytes": 96 << 20, **(engine or {})},
        "deployment_config": {
            "num_replicas": replicas, "health_check_period_s": 5,
            "graceful_shutdown_timeout_s": 5,
            "ray_actor_options": {"resources": on}, **deployment}}
    if env:
        entry["runtime_env"] = {"env_vars": env}
    return entry


def application(models, name="llm", route_prefix="/"):
    return {"name": name, "route_prefix": route_prefix,
            "import_path": "ray.serve.llm:build_openai_app",
            "args": {"llm_configs": models}}


# At most two on a node, so that they stand on both workers, and so that of a
# lost worker's replicas one at least has room on the other.
BASE = application([model(replicas=3, max_replicas_per_node=2)])


# What all tests have under `troupe`.
SETTINGS = {"restarts_per_minute": 1000, "restart_pause_s": 0,
            "failover": "exact", "threads_per_replica": 1}


def configuration(applications, **top):
    return {"proxy_location": "EveryNode", "troupe": SETTINGS, **top,
            "applications": applications}


def resident_kb(pid):
    """Its memory now."""
    with open(f"/proc/{pid}/status") as lines:
        return int(next(line for line in lines
                        if line.startswith("VmRSS")).split()[1])


class Node:
    """`troupe start` on a machine."""

    def __init__(self, name, machine, folder, *arguments, environment=None):
        self.machine = machine
        self.name = name
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "log"
        self.arguments = [
            "--node-name", self.name, "--node-ip-address", machine.address,
            "--http-host", machine.address, "--http-port", PORTS["http"], "--admin-port", PORTS["admin"],
            "--state-dir", self.state, *arguments]
        self.environment = environment or {}
        self.process = None
        self.frozen = []
        folder.mkdir(parents=True)

    def start(self):
        """Starts it and waits until it says where it is."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.machine.inside(BINARY, "start", *self.arguments, "--block"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment}, cwd=self.folder,
                start_new_session=True)
        wait_for(self.about, f"{self.name} does not come up", DEADLINE_S)
        return self

    def about(self):
        """node.json, once this process has written it."""
        assert self.process.poll() is None, self.said()[-3000:]
        try:
            found = json.loads((self.state / "node.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found if found["pid"] == self.process.pid else None

    def said(self):
        return self.log.read_text(errors="replace")

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def family(self):
        """Its process and its replicas'."""
        return family(self.process.pid) if self.runs() else []

    # What can happen to it

    def kill(self):
        """All its processes at once, as if the machine lost power."""
        everyone = self.family()
        for one in everyone:
            kill(one.pid)
        self.gone(everyone)

    def kill_process(self):
        """Only `troupe start`; its replicas are to end by themselves."""
        everyone = self.family()
        kill(self.process.pid)
        self.gone(everyone)

    def gone(self, everyone):
        self.process.wait(DEADLINE_S)
        wait_for(lambda: not any(p.lives() for p in everyone),
                 f"processes of {self.name} are left", DEADLINE_S)

    def freeze(self):
        """Every process of it, until thaw()."""
        self.frozen = self.family()
        for one in self.frozen:
            os.kill(one.pid, signal.SIGSTOP)

    def thaw(self):
        for one in reversed(self.frozen):
            if one.lives():
                os.kill(one.pid, signal.SIGCONT)
        self.frozen = []

    def stop(self):
        """As an operator does; its exit status."""
        everyone = self.family()
        self.process.send_signal(signal.SIGTERM)
        self.gone(everyone)
        return self.process.returncode

    # Asking it

    def connect(self, port="http"):
        """To its own loopback: no fault of the wire is between."""
        host = "127.0.0.1" if port == "admin" else self.machine.address
        return self.machine.connect(PORTS[port], host)

    def ask(self, path, body=None, at_frame=None, request_id=None, headers=None,
            **more):
        headers = {**({"x-request-id": request_id} if request_id else {}),
                   **(headers or {})}
        return client.ask(self.connect(), path, body, at_frame, headers=headers,
                          **more)

    def admin(self, method, path, body=None):
        """Of its admin listener: (status, JSON or text)."""
        answer = client.ask(self.connect("admin"), path, body, method=method)
        assert answer.whole, (method, path, answer)
        if answer.headers.get("content-type", "").startswith(
                "application/json") and answer.body:
            return answer.status, answer.json()
        return answer.status, answer.body.decode()

    def metrics(self):
        """Sums of all samples, by name."""
        status, text = self.admin("GET", "/metrics")
        assert status == 200, text
        sums = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def sent(self, name):
        """Choices of a model that its router sent, by replica."""
        return self.sent_of_all().get(name, {})

    def sent_of_all(self):
        """The same of all models whose replicas its router knows."""
        status, text = self.admin("GET", "/metrics")
        assert status == 200, text
        sample = re.compile(r"troupe_router_choices_sent_total\{.*"
                            r'model_name="(.*?)".*replica="(.*?)".*?\} (.*)')
        sent = {}
        for name, replica, count in sample.findall(text):
            sent.setdefault(name, {})[replica] = float(count)
        return sent


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def busy_ns(pid):
    """CPU time of all threads of a process; 0 if it is gone."""
    total = 0
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total


class Cluster:
    """A head that runs no replicas, and workers."""

    def __init__(self, folder, first_machine=1):
        self.folder = folder
        self.next_machine = first_machine
        self.nodes = {}
        self.token = None
        self.applications = {}  # acknowledged, by name
        self.version = 0  # newest table seen
        self.times = {}  # what was measured, by name: lists of seconds

    # Its nodes

    def start_head(self, *arguments):
        machine = self.build_machine("head")
        self.head = Node("head", machine, self.folder / "head", "--head", "--port",
                         PORTS["join"], "--cluster-port", PORTS["cluster"],
                         "--num-cpus", 0, *arguments)
        self.nodes["head"] = self.head.start()
        self.token = self.verb("token", "create", "--state-dir",
                               self.head.state).strip()
        return self

    def build_machine(self, name):
        number = self.next_machine
        self.next_machine += 1
        return Machine(f"{name}{number}", number).build()

    def add_worker(self, name, *arguments, resources=None, environment=None):
        machine = self.build_machine(name)
        node = Node(name, machine, self.folder / name, "--address",
                    f"{self.head.machine.address}:{PORTS['join']}", "--token",
                    self.token, "--resources", json.dumps(resources or {}),
                    *arguments, environment=environment)
        self.nodes[name] = node.start()
        wait_for(lambda: self.node(name)["alive"], f"{name} does not join",
                 DEADLINE_S)
        return node

    def end(self):
        for node in reversed(self.nodes.values()):
            if node.runs():
                node.kill()

    # Verbs and the admin listener

    def run_verb(self, *arguments):
        """A verb, typed on the head's machine."""
        return subprocess.run(
            self.head.machine.inside(BINARY, *arguments), text=True,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=DEADLINE_S)

    def verb(self, *arguments):
        done = self.run_verb(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    @property
    def admin_address(self):
        return f"127.0.0.1:{PORTS['admin']}"

    def deploy(self, *applications, wait=True, settle=True, **settings):
        """Makes these applications what the cluster is to run, waits until all
        of it is ready and, without a load, until nothing moves."""
        file = self.folder / "serve.yaml"
        file.write_text(json.dumps(configuration(list(applications),
                                                 **settings), indent=1))
        done = self.run_verb("deploy", file, "--admin", self.admin_address,
                             *(["--wait"] if wait else []))
        assert done.returncode == 0, done.stdout + done.stderr
        self.applications = {one["name"]: one for one in applications}
        if wait and settle:
            self.settle()

    def status(self):
        status, body = self.head.admin("GET", "/api/status")
        assert status == 200, body
        return body

    def node(self, name):
        return next((node for node in self.status()["nodes"]
                     if node["node"] == name), {"alive": False})

    def model(self, name="smollm2", status=None):
        return next(model for model in (status or self.status())["models"]
                    if model["model"] == name)

    def ready(self, name="smollm2", status=None):
        """Its replicas that may be asked."""
        return [replica for replica in self.model(name, status)["replicas"]
                if replica["phase"] == "ready"]

    def pids(self, name="smollm2"):
        return {replica["replica"]: replica["pid"] for replica in
                self.ready(name)}

    def wait_ready(self, name="smollm2", count=None):
        def enough():
            found = self.model(name)
            ready = [replica for replica in found["replicas"]
                     if replica["phase"] == "ready"]
            wanted = found["replicas_wanted"] if count is None else count
            return ready if len(ready) >= wanted else None
        return wait_for(enough, f"{name} has too few replicas", DEADLINE_S)

    def totals(self, name="smollm2"):
        """Counters of its replicas' processes, by pid."""
        return {replica["pid"]: replica["load"] for replica in
                self.model(name)["replicas"]}

    def wait_for_reports(self, name="smollm2"):
        """Until what is known of its replicas is of after this call."""
        before = self.totals(name)
        wait_for(lambda: all(
            load["report"] > before.get(pid, {"report": 0})["report"]
            for pid, load in self.totals(name).items()), "no reports")

    # Which replica

    def serving(self, before):
        """Of the processes in `before` (`work()`) the one that has worked most
        since."""
        return max(before, key=lambda pid: busy_ns(pid) - before[pid])

    def wait_for_work(self, before):
        """Until one of them has worked a millisecond, which none does by
        itself; looks often, because a token takes a few."""
        end = time.monotonic() + DEADLINE_S
        while max(busy_ns(pid) - ns for pid, ns in before.items()) < 1_000_000:
            assert time.monotonic() < end, "nobody works for the request"
            time.sleep(0.0005)

    def work(self, name="smollm2"):
        return {replica["pid"]: busy_ns(replica["pid"])
                for replica in self.ready(name)}

    def work_without(self, victims, name="smollm2"):
        """The same once another one is ready: who was killed may be shown as
        ready for a moment yet."""
        return wait_for(lambda: {
            pid: ns for pid, ns in self.work(name).items()
            if pid not in victims}, "no other one is ready", DEADLINE_S)

    # Invariants

    def settle(self, seconds=DEADLINE_S):
        """Waits until all that is wanted is ready and nothing is being done:
        no choice runs or waits anywhere and all KV blocks are free."""
        end = time.monotonic() + seconds
        while why := self.unsettled():
            assert time.monotonic() < end, f"after {seconds} s: {why}"
            time.sleep(0.02)

    def unsettled(self):
        """What is not yet as it should be, or nothing."""
        status = self.status()
        for one in status["models"]:
            if one["replicas_ready"] != one["replicas_wanted"] or \
                    len(one["replicas"]) != one["replicas_wanted"]:
                return f"{one['model']}: {one['status']} {one['reason']} " \
                       f"{one['replicas']}"
            for replica in one["replicas"]:
                load = replica["load"]
                if load["running"] or load["waiting"] or \
                        load["kv_blocks_free"] != load["kv_blocks_total"]:
                    return f"{replica['replica']} works: {load}"
        for node in self.nodes.values():
            if node.runs() and node.metrics()["troupe_requests_in_flight"]:
                return f"{node.name} has requests"
        listening = [one["node"] for one in status["nodes"]
                     if one["alive"] and one["http_port"]]
        for name in listening if status["models"] else []:
            code, text = self.nodes[name].admin("GET", "/-/healthz")
            if code != 200:
                return f"{name}'s router: {text}"
            known = self.nodes[name].sent_of_all()
            for one in status["models"]:
                wanted = {replica["replica"] for replica in one["replicas"]}
                if known.get(one["model"], {}).keys() != wanted:
                    return f"{name}'s router does not know all of " \
                           f"{one['model']} yet: {known}"
        return None

    def check(self):
        """Invariants I1 to I7 as far as they can be seen when nothing runs;
        those of single answers are in answers.py."""
        self.settle()
        self.check_version()
        self.check_applications()
        self.check_processes()

    def check_version(self):
        """I4, I5: tables only get newer."""
        version = self.status()["table_version"]
        assert version >= self.version
        self.version = version

    def check_applications(self):
        """I5: what was acknowledged is there, and nothing else."""
        status, body = self.head.admin("GET", "/api/serve/applications/")
        assert status == 200, body
        assert set(body["applications"]) == set(self.applications), body

    def check_processes(self):
        """One process for each replica and node that is wanted."""
        nodes = {node.process.pid for node in self.nodes.values()
                 if node.runs()}
        # Those of a node that came back may still be on their way out.
        end = time.monotonic() + DEADLINE_S
        while (found := others() - nodes) != (wanted := self.all_pids()):
            assert time.monotonic() < end, (found, wanted)
            time.sleep(0.05)

    def all_pids(self):
        """Of the replicas of all models, in whatever phase."""
        return {replica["pid"] for one in self.status()["models"]
                for replica in one["replicas"]}

    def mend(self, *applications):
        """After a test that failed: all nodes there, unhurt, running these."""
        for node in self.nodes.values():
            node.machine.mend()
            node.thaw()
            if not node.runs():
                print(f"{node.name} ended with {node.process.returncode}; "
                      f"its last words:\n{node.said()[-3000:]}")
                node.start()
        self.deploy(*applications)

    # Times, for docs/failures.md; never asserted

    def note(self, what, seconds):
        self.times.setdefault(what, []).append(seconds)

    def measured(self):
        """A line for each thing noted."""
        for what, seconds in sorted(self.times.items()):
            ordered = sorted(seconds)
            p99 = ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
            yield (f"{what}: median {statistics.median(ordered):.3f} s, p99 "
                   f"{p99:.3f} s, longest {ordered[-1]:.3f} s, of {len(ordered)}")


def standard(cluster):
    """A head, two workers of the shipped program (east, west) and one whose
    replicas fail on demand (south); three replicas of the model."""
    cluster.start_head()
    for name in ("east", "west"):
        cluster.add_worker(name, resources={"shipped": 100})
    cluster.add_worker("south", "--replica-program", FAULTY,
                       resources={"faulty": 100})
    cluster.deploy(BASE)
    return cluster


def others():
    """Ids of the product's processes, whosever they are."""
    programs = {str(BINARY), str(FAULTY)}
    return {int(entry.name) for entry in pathlib.Path("/proc").iterdir()
            if entry.name.isdigit() and program(entry) in programs}


def program(entry):
    """What the living process of that entry of /proc runs."""
    try:
        return os.readlink(entry / "exe")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended
