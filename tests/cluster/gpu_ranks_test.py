"""A replica whose ranks are on GPUs of several nodes. There are no GPUs: a fake
of NVML says that each worker has two, and a module computes by the CPU."""

import os
import re
import signal

import pytest

from answers import token_ids
from cluster import BINARY, ROOT, wait_for
from load import Truth, completion, id_of
from nodes import SETTINGS, Cluster, application, kill, model

# It has two heads.
EVEN = ROOT / "tests/reference/tiny/q4_1-linear.gguf"
TRUSTED = {**SETTINGS, "data_network": "trusted"}
LONG = completion("abc", model="pair", max_tokens=40, seed=171)
REQUESTS = [LONG, completion("de", model="pair", max_tokens=8, seed=172,
                             logprobs=2)]


def built(pattern):
    (path,) = BINARY.parent.rglob(pattern)
    return path


def on_gpus(name, ranks, placement=None, **deployment):
    entry = model(name, on={}, health_check_period_s=1,
                  engine={"tensor_parallel_size": ranks, "max_model_len": 64,
                          "max_num_seqs": 2, "max_num_batched_tokens": 16,
                          "kv_cache_memory_bytes": 1 << 20},
                  **{"replicas": 1, **deployment})
    entry["model_loading_config"]["model_source"] = str(EVEN)
    entry["accelerator_config"] = {"kind": "gpu"}
    entry["deployment_config"]["ray_actor_options"] = {"num_cpus": 0}
    if placement:
        entry["placement_group_config"] = placement
    return entry


def pair(strategy):
    return on_gpus("pair", 2, {"bundles": [{"GPU": 1}] * 2,
                               "strategy": strategy})


SPREAD = application([pair("STRICT_SPREAD")])


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A head and two workers, with a replica over both."""
    cluster = Cluster(tmp_path_factory.mktemp("gpu_ranks"), first_machine=141)
    gpus = {"LD_LIBRARY_PATH": str(built("libnvidia-ml.so.1").parent),
            "TROUPE_CUDA_MODULE": str(built("libemulated_gpu.so"))}
    try:
        cluster.start_head()
        for name in ("east", "west"):
            cluster.add_worker(name, environment=gpus)
        cluster.deploy(SPREAD, troupe=TRUSTED)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def truth(apart):
    known = Truth(apart)
    known.learn(REQUESTS)
    return known


def processes_on(cluster, name):
    """Those of a node beside its own."""
    node = cluster.nodes[name]
    return [one for one in node.family() if one.pid != node.process.pid]


def shape(cluster):
    return {name: len(processes_on(cluster, name))
            for name in ("east", "west")}


def gpus_used(cluster):
    return {node["node"]: node["used"].get("GPU", 0)
            for node in cluster.status()["nodes"] if node["node"] != "head"}


def asked(cluster, truth, disturb=lambda: None, note=""):
    """A stream of the head's router, at whose first frames something happens."""
    path, body = LONG
    answer = cluster.head.ask(
        path, body, request_id=id_of(path, body),
        at_frame=lambda n, _: disturb() if n == 3 else None)
    truth.check(answer, path, body, note)


def test_each_node_has_a_process_and_they_say_what_one_node_says(apart, truth):
    assert shape(apart) == {"east": 1, "west": 1}
    assert gpus_used(apart) == {"east": 1, "west": 1}
    (replica,) = apart.ready("pair")
    assert replica["device"] == "cuda: emulated GPU, 2 ranks"
    other = next(name for name in ("east", "west") if name != replica["node"])
    wait_for(lambda: len(apart.ready("pair")[0].get("gpus", [])) == 2,
             "not all GPUs' use is seen")
    own, elsewhere = apart.ready("pair")[0]["gpus"]
    assert "node" not in own and elsewhere.pop("node") == other
    assert own == elsewhere == {
        "gpu": "0", "memory_used_bytes": 1 << 30,
        "memory_total_bytes": 80 << 30, "busy_percent": 93}
    assert f"GPU 0 of {other}: 1024 of 81920 MiB, 93 % busy" in apart.verb(
        "status", "--admin", apart.admin_address)
    _, metrics = apart.head.admin("GET", "/metrics")
    busy = re.findall(r'troupe_gpu_busy_ratio{.*node="(\w+)",gpu="0"} 0\.93',
                      metrics)
    assert sorted(busy) == ["east", "west"]
    apart.deploy(application([pair("STRICT_PACK")]), troupe=TRUSTED)
    wait_for(lambda: sorted(shape(apart).values()) == [0, 1] and
             sorted(gpus_used(apart).values()) == [0, 2],
             "the ranks are not on one node")
    together = Truth(apart)
    for request in REQUESTS:
        assert token_ids(together(*request)) == token_ids(truth(*request))
    apart.deploy(SPREAD, troupe=TRUSTED)
    wait_for(lambda: shape(apart) == {"east": 1, "west": 1},
             "the ranks are not on both nodes")


@pytest.mark.parametrize("where", ["first", "other"])
def test_the_end_of_a_process_is_the_end_of_all_and_of_no_stream(apart, truth,
                                                                 where):
    (replica,) = apart.ready("pair")
    name = next(name for name in ("east", "west")
                if (name == replica["node"]) == (where == "first"))
    before = [one for node in ("east", "west")
              for one in processes_on(apart, node)]
    (victim,) = processes_on(apart, name)
    asked(apart, truth, lambda: kill(victim.pid), where)
    apart.settle()
    assert not any(one.lives() for one in before)
    assert shape(apart) == {"east": 1, "west": 1}


def test_a_process_that_hangs_on_another_node_is_ended(apart, truth):
    (replica,) = apart.ready("pair")
    name = next(name for name in ("east", "west") if name != replica["node"])
    (victim,) = processes_on(apart, name)
    asked(apart, truth, lambda: os.kill(victim.pid, signal.SIGSTOP), "hung")
    apart.settle()
    assert not victim.lives()
    assert shape(apart) == {"east": 1, "west": 1}


def test_no_part_is_placed_where_the_network_is_not_trusted(apart):
    apart.deploy(SPREAD, wait=False, troupe=SETTINGS)
    wait_for(lambda: "data_network: trusted" in apart.model("pair")["reason"],
             "it does not say why")
    wait_for(lambda: sum(shape(apart).values()) == 0, "ranks are left")


def test_ranks_go_to_several_nodes_if_no_node_has_enough(apart, truth):
    others = on_gpus("other", 1, replicas=2, max_replicas_per_node=1)
    here = application([others, pair("PACK")])
    apart.deploy(here, wait=False, troupe=SETTINGS)
    wait_for(lambda: "1 of 2 GPU free" in apart.model("pair")["reason"] or
             "0 of 2 GPU free" in apart.model("pair")["reason"],
             "it does not say why")
    apart.deploy(here, troupe=TRUSTED)
    assert shape(apart) == {"east": 2, "west": 2}
    assert gpus_used(apart) == {"east": 2, "west": 2}
    asked(apart, truth, note="beside another model")
