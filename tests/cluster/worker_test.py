"""A worker is lost: its streams go on elsewhere, its replicas are started again
where they fit, and when it comes back nothing is served twice."""

import time

import pytest

from cluster import wait_for
from faults import LOSSES, flap, lose_worker, wait_for_frames
from load import Load, chat, completion, open_streams
from nodes import BASE, application, model


def streams():
    """Long enough to be there when the node returns."""
    return [completion("The road goes on", max_tokens=220, seed=40 + i,
                       presence_penalty=1.0) for i in range(5)] + [
        chat("Describe a garden.", max_tokens=220, seed=49, logprobs=True)]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_streams_of_a_lost_worker_go_on(cluster, truth, chance, loss):
    # After a loss all may stand on one of the two.
    name = chance.choice([replica["node"] for replica in cluster.ready()])
    lose_worker(cluster, truth, name, loss, streams(), chance.randrange(3, 30))


def test_a_flapping_link_loses_no_stream(cluster, truth, chance):
    """Away and back every 300 ms: too short to be a loss, or just not."""
    name = chance.choice([replica["node"] for replica in cluster.ready()])
    node = cluster.nodes[name]
    requests = [completion("The bridge sways", max_tokens=200, seed=140 + i,
                           presence_penalty=1.0) for i in range(5)]
    truth.learn(requests)
    others = [one for one in cluster.nodes.values() if one is not node]
    with Load(truth, others, requests[:2], clients=2):
        streams = open_streams(cluster.head, requests)
        wait_for_frames(streams, 3)
        flap(node.machine, seconds=10)
        healed = time.monotonic()
        for request, stream in zip(requests, streams):
            truth.check(stream.finish(), *request, note=f"{name} flapped")
    wait_for(lambda: cluster.node(name)["alive"], "it does not come back")
    cluster.settle()
    cluster.note("link flapped: whole again", time.monotonic() - healed)


def test_a_worker_that_is_stopped_leaves_no_gap(cluster, truth, chance):
    """What it had is started elsewhere while it finishes what it runs."""
    name = chance.choice([replica["node"] for replica in cluster.ready()])
    others = [node for node in cluster.nodes.values() if node.name != name]
    requests = [completion("Rain fell", max_tokens=24, seed=50 + i)
                for i in range(4)]
    with Load(truth, others, requests) as load:
        wait_for(lambda: load.done() > 6, "no load")
        assert cluster.nodes[name].stop() == 0
        stopped = load.done()
        wait_for(lambda: load.done() > stopped + 6, "nobody serves")
        cluster.nodes[name].start()
    cluster.settle()


def asked(node):
    """Whether its router serves the model. It hears of it a moment after the
    head does, and until then says so."""
    answer = node.ask("/rare/v1/completions", {"prompt": "Hello",
                                               "max_tokens": 2})
    if answer.status == 503:
        assert answer.headers["retry-after"] and \
            answer.json()["error"]["code"] == "model_not_ready", answer.body
        return False
    assert answer.status == 200, answer.body
    return True


def test_a_worker_joins_and_is_given_what_waits(cluster):
    """Another machine, with what nobody else has."""
    pending = application([model("rare", replicas=1, on={"rare": 1})], "rare",
                          "/rare")
    cluster.deploy(BASE, pending, wait=False)
    found = wait_for(lambda: next(
        (one for one in cluster.status()["models"]
         if one["model"] == "rare" and one["status"] == "PENDING"), None),
        "it is not pending")
    assert "rare" in found["reason"] and any(
        node in found["reason"] for node in cluster.nodes), found["reason"]

    began = time.monotonic()
    node = cluster.add_worker("north", resources={"rare": 1})
    cluster.note("a worker joins, from its start", time.monotonic() - began)
    cluster.wait_ready("rare", 1)
    wait_for(lambda: asked(node), "its router does not hear of the model")

    # It leaves as it should: nothing is left of it.
    assert node.stop() == 0
    del cluster.nodes["north"]
    cluster.deploy(BASE)
    wait_for(lambda: not cluster.node("north")["alive"], "it is still there")
