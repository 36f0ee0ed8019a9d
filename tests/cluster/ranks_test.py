"""A replica whose ranks are on several nodes, over a network that is trusted."""

import os
import signal

import pytest

from answers import token_ids
from cluster import wait_for
from load import Truth, completion, id_of
from nodes import SETTINGS, Cluster, application, kill, model

# SmolLM2 has nine heads: three ranks have three each.
RANKS = 3
TRUSTED = {**SETTINGS, "data_network": "trusted"}
LONG = completion("Once upon a time", max_tokens=60, seed=171)
REQUESTS = [LONG, completion("The sea", max_tokens=12, seed=172, logprobs=2)]


def ranked(strategy, **more):
    bundles = [{"ranks": 1}] * RANKS
    entry = model(replicas=1, on={}, engine={"tensor_parallel_size": RANKS},
                  health_check_period_s=1, **more)
    entry["deployment_config"]["ray_actor_options"] = {"num_cpus": 0}
    entry["placement_group_config"] = {"bundles": bundles, "strategy": strategy}
    return application([entry])


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A head and two workers with a replica over all of them."""
    cluster = Cluster(tmp_path_factory.mktemp("ranks"), first_machine=121)
    try:
        cluster.start_head("--resources", '{"ranks": 1}')
        for name in ("east", "west"):
            cluster.add_worker(name, resources={"ranks": 3})
        cluster.deploy(ranked("STRICT_SPREAD"), troupe=TRUSTED)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def truth(apart):
    known = Truth(apart)
    known.learn(REQUESTS)
    return known


def ranks_on(cluster, name):
    """Processes of a node beside its own."""
    node = cluster.nodes[name]
    return [one for one in node.family() if one.pid != node.process.pid]


def shape(cluster):
    return {name: len(ranks_on(cluster, name)) for name in cluster.nodes}


def asked(cluster, truth, disturb=lambda: None, note=""):
    """A stream of the head's router, at whose first frames something happens."""
    path, body = LONG
    answer = cluster.head.ask(
        path, body, request_id=id_of(path, body),
        at_frame=lambda n, _: disturb() if n == 3 else None)
    truth.check(answer, path, body, note)


def test_each_node_has_a_rank_and_they_say_what_three_on_one_say(apart, truth):
    assert shape(apart) == {"head": 1, "east": 1, "west": 1}
    used = {node["node"]: node["used"]["ranks"]
            for node in apart.status()["nodes"]}
    assert used == {"head": 1, "east": 1, "west": 1}
    apart.deploy(ranked("STRICT_PACK"), troupe=TRUSTED)
    assert sorted(shape(apart).values()) == [0, 0, 3]
    together = Truth(apart)
    for request in REQUESTS:
        assert token_ids(together(*request)) == token_ids(truth(*request))
    apart.deploy(ranked("STRICT_SPREAD"), troupe=TRUSTED)
    assert shape(apart) == {"head": 1, "east": 1, "west": 1}


@pytest.mark.parametrize("where", ["first", "other"])
def test_the_end_of_a_rank_is_the_end_of_all_and_of_no_stream(apart, truth,
                                                              where):
    (replica,) = apart.ready()
    name = next(name for name in apart.nodes
                if (name == replica["node"]) == (where == "first"))
    before = [one for node in apart.nodes for one in ranks_on(apart, node)]
    (victim,) = ranks_on(apart, name)
    asked(apart, truth, lambda: kill(victim.pid), where)
    apart.settle()
    wait_for(lambda: not any(one.lives() for one in before),
             "a rank has outlived the others")
    assert shape(apart) == {"head": 1, "east": 1, "west": 1}


@pytest.mark.parametrize("strategy", ["STRICT_PACK", "STRICT_SPREAD"])
def test_a_request_under_which_other_ranks_crash_is_found_out(apart, truth,
                                                              strategy):
    """Of one node, and of others. Twice, the second time while it is tried
    alone; then it is refused, and nobody else is."""
    path, body = completion("Once upon a crime " + strategy, max_tokens=60,
                            seed=173)
    apart.deploy(ranked(strategy), troupe=TRUSTED)
    (replica,) = apart.ready()
    together = strategy == "STRICT_PACK"
    name = next(name for name in apart.nodes
                if (name == replica["node"]) == together)
    crashed = set()

    def crash(*_):
        ranks = sorted(one.pid for one in ranks_on(apart, name))
        if len(ranks) == (RANKS if together else 1):  # all of a start
            if ranks[-1] not in crashed:
                crashed.add(ranks[-1])
                kill(ranks[-1], signal.SIGSEGV)

    refused = apart.head.ask(path, body, at_frame=crash)
    assert len(crashed) >= 2
    assert "error" in refused.events()[-1], refused.events()[-1]
    assert b"[DONE]" not in refused.frames
    apart.settle()
    again = apart.head.ask(path, body)
    assert again.status == 500, (again.status, again.body)
    asked(apart, truth, note="beside one that is refused")


def test_a_rank_that_hangs_on_another_node_is_ended(apart, truth):
    (replica,) = apart.ready()
    name = next(name for name in apart.nodes if name != replica["node"])
    (victim,) = ranks_on(apart, name)
    asked(apart, truth, lambda: os.kill(victim.pid, signal.SIGSTOP), "hung")
    apart.settle()
    assert not victim.lives()
    assert shape(apart) == {"head": 1, "east": 1, "west": 1}


def test_a_lost_node_takes_the_replica_with_it_until_it_is_back(apart, truth):
    (replica,) = apart.ready()
    west = apart.nodes["west"]
    west.kill()
    wait_for(lambda: not apart.ready() and
             "STRICT_SPREAD" not in apart.model()["reason"] and
             apart.model()["reason"], "the replica stays")
    wait_for(lambda: shape(apart)["east"] == 0 and shape(apart)["head"] == 0,
             "ranks are left")
    west.start()
    apart.settle()
    assert shape(apart) == {"head": 1, "east": 1, "west": 1}
    asked(apart, truth, note="after the node was back")


def test_a_head_that_begins_anew_finds_the_replica_as_it_was(apart, truth):
    """All but its own ranks: with its process its replicas end."""
    apart.deploy(ranked("SPREAD", max_replicas_per_node=1), troupe=TRUSTED)
    apart.head.kill()
    apart.head.start()
    apart.settle()
    asked(apart, truth, note="after the head was back")


def test_no_part_is_placed_where_the_network_is_not_trusted(apart):
    apart.deploy(ranked("STRICT_SPREAD"), wait=False, troupe=SETTINGS)
    wait_for(lambda: "data_network: trusted" in apart.model()["reason"],
             "it does not say why")
    wait_for(lambda: sum(shape(apart).values()) == 0, "ranks are left")
