"""Nodes come when models need them and go when they are idle; workers are
processes of this machine that `troupe start --head` brings by a cluster file."""

import json
import os
import re
import signal
import subprocess
import time

import httpx
import pytest

from cluster import (BINARY, DEADLINE_S, brought, chunks, free_ports,
                     model_config, run_verb, serve_config, wait_for)

UP = re.compile(r"node head is up: http http://\S+:(\d+), "
                r"admin http://\S+:(\d+), join \S+:(\d+)")


def cluster_file(types, **top):
    """JSON is YAML too."""
    return json.dumps({"provider": {"type": "subprocess"},
                       "idle_timeout_minutes": 0.02, "max_workers": 3,
                       "available_node_types": types, **top})


def model(cpus, name="smollm2"):
    return serve_config(
        model_config(name, engine_kwargs={
            "max_model_len": 512, "kv_cache_memory_bytes": 64 << 20},
            deployment_config={"ray_actor_options": {"num_cpus": cpus},
                               "graceful_shutdown_timeout_s": 5}),
        troupe={"threads_per_replica": 1})


class Head:
    """A head of one core, and the workers that it brings."""

    def __init__(self, folder, cluster):
        self.folder = folder
        self.state = folder / "state"
        (folder / "cluster.yaml").write_text(cluster)
        self.ports = free_ports(2)
        self.process = None

    def start(self):
        log = self.folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [BINARY, "start", "--head", "--block", "--num-cpus", "1",
                 "--http-port", "0", "--admin-port", "0",
                 "--port", str(self.ports[0]),
                 "--cluster-port", str(self.ports[1]),
                 "--autoscaling-config", self.folder / "cluster.yaml",
                 "--state-dir", self.state],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True)
        found = wait_for(lambda: UP.search(log.read_text(errors="replace")),
                         f"the head is not up:\n{log.read_text()}")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{found[1]}",
                                 timeout=DEADLINE_S, trust_env=False)
        self.admin = f"127.0.0.1:{found[2]}"
        return self

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def verb(self, *arguments):
        done = run_verb(*arguments, "-a", self.admin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self, config):
        file = self.folder / "serve.yaml"
        file.write_text(config)
        self.verb("deploy", file)

    def status(self):
        return json.loads(self.verb("status", "--json"))

    def asked(self, **like):
        return [node for node in self.status()["autoscaled_nodes"]["nodes"]
                if like.items() <= node.items()]

    def type(self, name):
        return next(one for one in self.status()["autoscaled_nodes"]["types"]
                    if one["type"] == name)

    def answers(self):
        answer = self.http.post("/v1/completions", json={
            "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0})
        if answer.status_code != 200:
            time.sleep(0.2)  # a busy machine has better to do
        return answer.status_code == 200

    def workers(self):
        """Processes that are nodes of this head, or were to become some."""
        return (one for _, one in brought(self.state))

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(DEADLINE_S) == 0
            assert list(self.workers()) == []
        for one in self.workers():
            os.kill(one.pid, signal.SIGKILL)


@pytest.fixture
def head(tmp_path):
    """head(cluster file): one that ends, with all its workers, with the test."""
    begun = []

    def begin(cluster):
        begun.append(Head(tmp_path, cluster))
        return begun[-1].start()
    yield begin
    for one in begun:
        one.end()


def test_a_node_comes_for_a_model_and_goes_when_it_is_idle(head):
    one = head(cluster_file({
        "broken": {"resources": {"CPU": 2},
                   "node_config": {"executable": "no/such/program"}},
        "small": {"resources": {"CPU": 2}},
        "kept": {"resources": {"CPU": 0.5}, "min_workers": 1}}))
    wait_for(lambda: one.asked(type="kept", state="idle"), "no minimum")
    one.deploy(model(2))
    # `broken` would do as well, and comes first by its name.
    wait_for(lambda: one.asked(type="small"), "nobody was asked for")
    broken = one.type("broken")
    assert broken["failures"] == 1 and broken["nodes"] == 0
    assert "cannot be run" in broken["reason"]
    assert broken["rests_ms"] > 0
    wait_for(one.answers, "it does not serve")
    (node,) = one.asked(type="small")
    assert node["state"] == "joined"
    status = one.status()
    assert status["demands"] == []
    (replica,) = status["models"][0]["replicas"]
    assert replica["node"] == node["node"]
    shown = one.verb("status")
    assert "small: 1 of 0 to 3" in shown and "cannot be run" in shown, shown
    one.verb("delete", "llm")
    wait_for(lambda: not one.asked(type="small"), "it stays")
    wait_for(lambda: len(list(one.workers())) == 1, "its process stays")
    wait_for(lambda: node["node"] not in
             [each["node"] for each in one.status()["nodes"]],
             "it is not forgotten")
    # The minimum is idle, too, and stays; no model ever ran there.
    (kept,) = one.asked()
    assert (kept["type"], kept["state"]) == ("kept", "idle")


def test_what_no_type_takes_stays_a_demand(head):
    one = head(cluster_file({"small": {"resources": {"CPU": 2}}}))
    one.deploy(model(3))
    (demand,) = wait_for(lambda: one.status()["demands"], "no demand")
    assert demand["replicas"] == 1
    assert demand["bundles"] == [{"CPU": 3}]
    assert "head has 1 of 1 CPU free" in demand["reason"]
    assert "Demands" in one.verb("status")
    wait_for(lambda: one.status()["demands"][0]["waits_ms"] > 0, "no age")
    assert one.asked() == []


def test_a_head_that_is_killed_leaks_no_node_and_counts_none_twice(
        head, tmp_path):
    go = tmp_path / "go"
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\n"
                    f"exec {BINARY} \"$@\"\n")
    slow.chmod(0o700)
    one = head(cluster_file({"slow": {
        "resources": {"CPU": 2}, "node_config": {"executable": "slow"}}}))
    one.deploy(model(2))
    (worker,) = wait_for(lambda: list(one.workers()), "nobody was asked for")
    one.kill()  # between request and arrival
    assert worker.lives()
    one.start()
    # Asked for before, and not asked for again.
    (node,) = wait_for(lambda: one.asked(), "it is forgotten")
    assert list(one.workers()) == [worker]
    go.touch()
    wait_for(one.answers, "it does not serve")
    assert one.asked(node=node["node"], state="joined")
    assert list(one.workers()) == [worker]
    one.kill()  # while it serves
    assert worker.lives()
    one.start()
    wait_for(one.answers, "it does not serve any more")
    wait_for(lambda: one.asked(node=node["node"], state="joined"),
             "it is not taken back")
    assert list(one.workers()) == [worker]
    one.kill()  # and never comes back: while it is away its node has ended
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not worker.lives(), "it cannot be killed")
    one.start()
    wait_for(one.answers, "no other one came")
    assert len(list(one.workers())) == 1
    assert [each["node"] for each in one.asked()] != [node["node"]]
    # Told to end, the head lets its streams finish, and takes all nodes along.
    with one.http.stream("POST", "/v1/completions", json={
            "prompt": "Once upon a time", "max_tokens": 100, "temperature": 0,
            "ignore_eos": True, "stream": True}) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        one.process.send_signal(signal.SIGTERM)
        text += "".join(pieces)
    assert chunks(text)[-1]["choices"][0]["finish_reason"] == "length"
    assert one.process.wait(DEADLINE_S) == 0
    assert list(one.workers()) == []
    assert list((one.state / "nodes").iterdir()) == []
