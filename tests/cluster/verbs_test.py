"""The verbs and the REST API: what is asked for is what runs, a bad request
changes nothing, and what cannot be has a reason."""

import contextlib
import json
import re
import signal
import subprocess
import time

import pytest

from cluster import BINARY, DEADLINE_S, family, wait_for
from load import completion, id_of
from nodes import BASE, PORTS, Cluster, application, configuration, model

PROBE = completion("The verb", max_tokens=6, seed=131)
PATH = "/api/serve/applications/"


def put(cluster, document):
    return cluster.head.admin("PUT", PATH, document)


def state(cluster):
    """What must not change when nothing is to change."""
    status, deployed = cluster.head.admin("GET", "/api/config")
    assert status == 200, deployed
    return deployed, cluster.status()["table_version"], cluster.pids()


def finding(answer):
    """All texts of a refusal."""
    return json.dumps(answer)


# The REST API


def test_putting_the_same_again_changes_nothing(cluster):
    before = state(cluster)
    for _ in range(3):
        status, body = put(cluster, configuration([BASE]))
        assert status == 200, body
        assert state(cluster) == before


def changed(**more):
    """The base application with other replicas, and what is wrong beside it."""
    return {**configuration([application([model(replicas=1)])]), **more}


@pytest.mark.parametrize("document, names", [
    (b"", []), (b"{", []), (b"[1, 2", []), (b"\xff\xfe", []),
    ({}, ["applications"]),
    (changed(proxy_location="Nowhere", no_such_key=1),
     ["proxy_location", "no_such_key"]),
    (changed(applications=[application([model(replicas=0)])]),
     ["num_replicas"]),
    (changed(applications=[application([model()]), application([model()])]),
     ["llm"]),
    (changed(applications=[application([model(engine={"max_model_len": -1})]),
                           application([model("b")], "b", "no-slash")]),
     ["max_model_len", "route_prefix"]),
], ids=str)
def test_a_bad_document_is_refused_whole(cluster, document, names):
    """With all that is wrong with it, and what is right in it is not done."""
    before = state(cluster)
    status, body = put(cluster, document)
    assert status == 400, body
    for name in names:
        assert name in finding(body)
    assert state(cluster) == before


def test_other_methods_and_names_are_refused(cluster):
    before = state(cluster)
    for method, path, expected in [
            ("POST", PATH, 405), ("PATCH", PATH, 405),
            ("DELETE", PATH + "nobody", 404), ("GET", "/api/nothing", 404),
            ("GET", "/v1/models", 404), ("DELETE", PATH + "a" * 5000, 404)]:
        status, body = cluster.head.admin(method, path)
        assert status == expected, (method, path, body)
    assert state(cluster) == before


def test_the_details_are_those_of_ray(cluster):
    status, body = cluster.head.admin("GET", PATH)
    assert status == 200
    assert body["proxy_location"] == "EveryNode"
    one = body["applications"]["llm"]
    assert one["status"] == "RUNNING" and one["route_prefix"] == "/"
    (deployment,) = one["deployments"].values()
    assert deployment["status"] == "HEALTHY"
    assert len(deployment["replicas"]) == 3
    assert set(body["proxies"]) == set(cluster.nodes)
    # Without the last slash too, as Ray's clients ask.
    assert cluster.head.admin("GET", PATH[:-1])[1]["applications"].keys() == {
        "llm"}


def test_only_what_changed_changes(cluster, truth):
    """Applications come, change and go; the others' replicas stay."""
    before = cluster.pids()
    small = application([model("small", replicas=1)], "small", "/small")
    cluster.deploy(BASE, small)
    small_before = cluster.pids("small")
    cluster.deploy(BASE, application(
        [model("small", replicas=1, engine={"max_num_seqs": 5})], "small",
        "/small"))
    assert cluster.pids("small") != small_before
    assert cluster.pids() == before
    cluster.verb("delete", "small", "--admin", cluster.admin_address)
    del cluster.applications["small"]
    cluster.settle()
    assert [one["model"] for one in cluster.status()["models"]] == ["smollm2"]
    assert cluster.pids() == before
    refused = cluster.run_verb("delete", "small", "--admin",
                               cluster.admin_address)
    assert refused.returncode == 1 and "small" in refused.stderr
    truth.check(cluster.head.ask(*PROBE, request_id=id_of(*PROBE)), *PROBE)


# Verbs


def test_config_shows_what_was_deployed_but_no_secrets(cluster):
    before = cluster.pids()
    keyed = model("keyed", replicas=1, env={"MY_API_KEY": "sk-in-a-variable",
                                            "TZ": "UTC"})
    cluster.deploy(BASE, application([keyed], "keyed", "/keyed"), settle=False,
                   troupe={**configuration([])["troupe"],
                           "api_keys": ["sk-only-mine"]})
    try:
        answer = cluster.head.ask("/v1/models")
        assert answer.status == 401
        said = cluster.verb("config", "--admin", cluster.admin_address)
        assert "smollm2" in said and "keyed" in said and "UTC" in said
        for secret in ("sk-only-mine", "sk-in-a-variable"):
            assert secret not in said
            for node in cluster.nodes.values():
                assert secret not in node.said()
            assert secret not in cluster.verb("status", "--json", "--admin",
                                              cluster.admin_address)
    finally:
        cluster.deploy(BASE)
    assert cluster.pids() == before


def test_status_names_nodes_replicas_and_reasons(cluster):
    said = cluster.verb("status", "--admin", cluster.admin_address)
    for name in cluster.nodes:
        assert name in said
    for name, pid in cluster.pids().items():
        assert name in said and str(pid) in said
    assert "3 of 3" in said
    told = json.loads(cluster.verb("status", "--json", "--admin",
                                   cluster.admin_address))
    assert {node["node"] for node in told["nodes"]} == set(cluster.nodes)


def test_a_deploy_that_is_refused_says_why(cluster, tmp_path):
    before = state(cluster)
    file = tmp_path / "bad.yaml"
    file.write_text(json.dumps(changed(no_such_key=1), indent=1))
    done = cluster.run_verb("deploy", file, "--wait", "--admin",
                            cluster.admin_address)
    assert done.returncode == 2
    assert f"{file}:" in done.stderr and "no_such_key" in done.stderr
    # Nobody there.
    done = cluster.run_verb("deploy", cluster.folder / "serve.yaml", "--admin",
                            "127.0.0.1:9")
    assert done.returncode == 1 and "127.0.0.1:9" in done.stderr
    assert state(cluster) == before


def test_the_plan_is_what_happens(cluster, tmp_path):
    """Bytes and places, from the allocator's own code."""
    said = cluster.verb("plan", cluster.folder / "serve.yaml", "--admin",
                        cluster.admin_address)
    assert "smollm2" in said
    used = {replica["node"] for replica in cluster.model()["replicas"]}
    for node in used:
        assert node in said, said
    total = cluster.model()["replicas"][0]["load"]["kv_blocks_total"] * 16
    assert str(total) in said.replace(",", "").replace("'", ""), said
    # What has no place says so, and its verb fails or warns.
    file = tmp_path / "much.yaml"
    file.write_text(json.dumps(configuration([application(
        [model("much", replicas=2, on={"nowhere": 1})])])))
    said = cluster.run_verb("plan", file, "--admin", cluster.admin_address)
    assert "nowhere" in said.stdout + said.stderr


# Where things go


def public_ports(cluster):
    """The nodes whose routers listen."""
    found = set()
    for node in cluster.nodes.values():
        with contextlib.suppress(ConnectionError):
            node.connect().close()
            found.add(node.name)
    return found


def test_proxy_location_says_whose_routers_listen(cluster, truth):
    before = cluster.pids()
    everyone = set(cluster.nodes)
    for where, expected in [("HeadOnly", {"head"}), ("Disabled", set()),
                            ("EveryNode", everyone)]:
        cluster.deploy(BASE, proxy_location=where)
        wait_for(lambda: public_ports(cluster) == expected, where)
        for name in expected:
            truth.check(cluster.nodes[name].ask(
                *PROBE, request_id=id_of(*PROBE)), *PROBE)
    assert cluster.pids() == before


@pytest.fixture
def pending(cluster):
    """pending(entry): the reason why a model's replicas do not all run, and how
    many do."""
    def deploy(entry, ready=0):
        name = entry["model_loading_config"]["model_id"]
        cluster.deploy(BASE, application([entry], "more", "/more"), wait=False)
        found = wait_for(lambda: next(
            (one for one in cluster.status()["models"] if one["model"] == name
             and one["reason"] and one["replicas_ready"] == ready), None),
            "it has no reason to wait")
        return found["reason"]
    yield deploy
    cluster.deploy(BASE)


def test_what_is_too_large_names_bundle_and_node(cluster, pending):
    entry = model("large", replicas=1)
    entry["placement_group_config"] = {"bundles": [{"CPU": 1}, {"CPU": 999}],
                                       "strategy": "PACK"}
    reason = pending(entry)
    assert "CPU" in reason and "999" in reason, reason
    assert any(name in reason for name in cluster.nodes), reason


def test_a_gpu_that_is_not_there_is_named(cluster, pending):
    entry = model("gpu", replicas=1)
    del entry["accelerator_config"]
    entry["accelerator_type"] = "A10G"
    reason = pending(entry)
    assert "GPU" in reason or "A10G" in reason, reason


def test_custom_resources_and_replicas_per_node_are_kept(cluster, pending):
    """Three replicas, one per node, two nodes with that resource."""
    reason = pending(model("apart", replicas=3, max_replicas_per_node=1),
                     ready=2)
    assert "max_replicas_per_node" in reason or "per node" in reason, reason
    nodes = [replica["node"] for replica in cluster.ready("apart")]
    assert sorted(nodes) == ["east", "west"]


def test_counted_cores_bound_the_replicas(cluster, pending):
    """As many as the nodes' cores hold, and no more."""
    cpus = {node["node"]: node["cpus"] for node in cluster.status()["nodes"]}
    fits = cpus["east"] + cpus["west"]
    entry = model("counted", replicas=fits + 1)
    entry["deployment_config"]["ray_actor_options"]["num_cpus"] = 1
    reason = pending(entry, ready=fits)
    assert "CPU" in reason, reason
    used = [replica["node"] for replica in cluster.ready("counted")]
    assert {name: used.count(name) for name in ("east", "west")} == {
        "east": cpus["east"], "west": cpus["west"]}


# Joining


def refused(cluster, name, *arguments, seconds=DEADLINE_S):
    """What a worker says that may not join."""
    done = subprocess.run(
        cluster.head.machine.inside(
            BINARY, "start", "--node-name", name, "--http-port", 0,
            "--admin-port", 0, "--block", *arguments),
        capture_output=True, text=True, timeout=seconds)
    assert done.returncode not in (0, -signal.SIGKILL), done
    return done.stdout + done.stderr


def test_a_token_is_needed_to_join(cluster, tmp_path):
    join = ["--address", f"{cluster.head.machine.address}:{PORTS['join']}"]
    good = cluster.token
    for number, (token, word) in enumerate([
            ("", "token"), (good[:-1] + ("a" if good[-1] != "a" else "b"),
                            "token"), ("x" * 100_00, "token")]):
        said = refused(cluster, "stranger", *join, "--state-dir",
                       tmp_path / str(number), "--token", token)
        assert word in said.lower(), said
    # One that was good for a second.
    short = cluster.verb("token", "create", "--good-for", "1s", "--state-dir",
                         cluster.head.state).strip()
    time.sleep(2)
    said = refused(cluster, "stranger", *join, "--state-dir", tmp_path / "old",
                   "--token", short)
    assert "expire" in said.lower(), said
    # A name that is taken by one that lives.
    said = refused(cluster, "east", *join, "--state-dir", tmp_path / "same",
                   "--token", good, "--node-ip-address",
                   cluster.head.machine.address)
    assert "east" in said, said
    assert "stranger" not in {node["node"] for node in
                              cluster.status()["nodes"]}


def test_shutdown_and_stop_end_a_cluster(tmp_path):
    """A small one of its own: all applications go, then the nodes."""
    small = Cluster(tmp_path / "small", first_machine=101)
    try:
        small.start_head()
        worker = small.add_worker("second", resources={"shipped": 1})
        small.deploy(application([model(replicas=2)]))
        small.verb("shutdown", "--yes", "--admin", small.admin_address)
        small.applications = {}
        small.settle()
        small.check_applications()
        assert small.status()["models"] == []
        for node in (worker, small.head):
            everyone = family(node.process.pid)
            small.verb("stop", "--state-dir", node.state)
            node.gone(everyone)
            assert node.process.returncode == 0
            again = small.run_verb("stop", "--state-dir", node.state)
            assert again.returncode != 0 and again.stderr
            assert node.said().count("this node has stopped") == 1
            assert node.said().count("joined the head") == 1
            if node is worker:
                wait_for(lambda: "node second has stopped" in small.head.said(),
                         "the head does not say that its worker has stopped")
        assert small.head.said().count("node second joined") == 1
        # An end that was asked for is no error.
        assert not re.search(r"^[\d:.]+ E ", small.head.said(), re.MULTILINE)
    finally:
        small.end()
