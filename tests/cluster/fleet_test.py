"""Nodes come with the load and go with it, and their head is lost meanwhile: no
request notices, and none of the nodes is there twice."""

import contextlib
import dataclasses
import json
import threading

import pytest

import client
from cluster import brought, wait_for
from load import Load, Truth, chat, completion
from network import Machine
from nodes import DEADLINE_S, SHIPPED, Cluster, application, kill, model

NODES_MAX = 3
FLEET = {"provider": {"type": "subprocess"}, "max_workers": NODES_MAX,
         "idle_timeout_minutes": 0.02,
         "available_node_types": {"small": {
             "resources": {"CPU": 1, **SHIPPED}, "min_workers": 1,
             "max_workers": NODES_MAX}}}
# A node has what one replica takes.
GROWING = application([model(
    replicas=None, ray_actor_options={"num_cpus": 1, "resources": SHIPPED},
    autoscaling_config={"min_replicas": 1, "max_replicas": NODES_MAX,
                        "target_ongoing_requests": 4, "downscale_delay_s": 3})])
REQUESTS = [completion("The caravan", max_tokens=24, seed=171),
            completion("Seven camels", max_tokens=16, n=2, seed=172),
            chat("How far is it?", max_tokens=24, seed=173, stream=False,
                 stream_options=None)]


class Watch(threading.Thread):
    """Looks all the while which nodes a head has brought."""

    def __init__(self, state):
        super().__init__(daemon=True)
        self.state = state
        self.is_over = threading.Event()
        self.seen = {}  # processes by node, all that ever were
        self.most = 0   # of them at once

    def run(self):
        while not self.is_over.wait(0.05):
            now = brought(self.state)
            self.most = max(self.most, len(now))
            for name, one in now:
                self.seen.setdefault(name, set()).add(one)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.join()


@dataclasses.dataclass
class Router:
    """That of a node that was brought."""
    machine: Machine
    name: str
    port: int

    def ask(self, path, body, request_id):
        return client.ask(self.machine.connect(self.port, "127.0.0.1"), path,
                          body, headers={"x-request-id": request_id})


@pytest.fixture
def fleet(tmp_path):
    """A head on a machine of its own that brings its workers; a model."""
    (tmp_path / "fleet.yaml").write_text(json.dumps(FLEET))  # JSON is YAML too
    cluster = Cluster(tmp_path / "fleet", first_machine=111)
    try:
        cluster.start_head("--autoscaling-config", tmp_path / "fleet.yaml")
        yield cluster
    finally:
        cluster.end()
        for _, one in brought(cluster.head.state):
            kill(one.pid)


def joined(cluster):
    """Names of the nodes that it brought and that are there."""
    return {node["node"] for node in
            cluster.status()["autoscaled_nodes"]["nodes"]
            if node["state"] in ("joined", "idle")}


def routers(cluster):
    return [Router(cluster.head.machine, node["node"], node["http_port"])
            for node in cluster.status()["nodes"]
            if node["alive"] and node["node"] in joined(cluster)]


def is_large(cluster):
    return (len(joined(cluster)) == NODES_MAX
            and len(cluster.ready()) == NODES_MAX)


def wait_for_router(node):
    """It hears of the model, and of its replicas, a moment after the head."""
    path, body = REQUESTS[0]
    wait_for(lambda: node.ask(path, body, request_id="first").status == 200,
             f"{node.name} does not serve")


def more(load, count=12):
    before = load.done()
    wait_for(lambda: load.done() > before + count, "nobody serves")


def test_nodes_come_and_go_with_the_load_and_a_head_is_lost(fleet):
    head, truth = fleet.head, Truth(fleet)
    with Watch(head.state) as watch, contextlib.ExitStack() as steady:
        wait_for(lambda: len(joined(fleet)) == 1, "no minimum", DEADLINE_S)
        fleet.deploy(GROWING, settle=False)
        wait_for_router(head)
        with Load(truth, [head], REQUESTS, clients=16) as load:
            wait_for(lambda: is_large(fleet), "it stays small")
            more(load)
            # From here on there are others, at the nodes themselves.
            doors = routers(fleet)
            for door in doors:
                wait_for_router(door)
            others = steady.enter_context(Load(truth, doors, REQUESTS,
                                               clients=16))
            more(others)
        before = brought(head.state)
        assert len(before) == NODES_MAX
        kill(head.process.pid)
        head.process.wait(DEADLINE_S)
        more(others)
        head.start()
        wait_for(lambda: is_large(fleet), "they do not meet again")
        wait_for_router(head)
        with Load(truth, [head], REQUESTS, clients=4) as load:
            more(load)
        assert sorted(brought(head.state)) == sorted(before)
        steady.close()  # the load goes away
        wait_for(lambda: len(joined(fleet)) == 1, "it stays large")
        wait_for(lambda: len(brought(head.state)) == 1, "processes stay")
        wait_for_router(head)
    # Nobody was asked for again, or started twice.
    assert watch.most == len(watch.seen) == NODES_MAX, watch.seen
    assert all(len(processes) == 1 for processes in watch.seen.values())
    assert set(watch.seen) == {name for name, _ in before}
    everyone = [one for _, one in brought(head.state)]
    assert head.stop() == 0
    assert not any(one.lives() for one in everyone)
    assert list((head.state / "nodes").iterdir()) == []
