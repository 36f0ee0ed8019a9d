"""The head is killed and started again: routers and replicas of the workers
serve all the while, and what lives is adopted."""

import contextlib
import json
import shutil
import subprocess

import pytest

from cluster import BINARY, DEADLINE_S, wait_for
from faults import lose_head
from load import Load, chat, completion, id_of
from network import tool
from nodes import BASE, application, configuration, kill, model

REQUESTS = [completion("Winter came", max_tokens=24, seed=51),
            completion("A small boat", max_tokens=16, n=2, seed=52),
            chat("Say something kind.", max_tokens=20, seed=53),
            chat("Count to five.", max_tokens=12, seed=54, stream=False,
                 stream_options=None)]


def who(cluster):
    return {replica["replica"]: (replica["pid"], replica["restarts"])
            for one in cluster.status()["models"]
            for replica in one["replicas"]}


def epoch(cluster):
    return cluster.status()["table_version"] >> 32


def served(load, more):
    before = load.done()
    wait_for(lambda: load.done() > before + more, "nobody serves")


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_workers_serve_while_the_head_is_away(cluster, truth, chance, way):
    workers = [cluster.nodes["east"], cluster.nodes["west"]]
    before, old = who(cluster), epoch(cluster)
    with Load(truth, workers, REQUESTS) as load:
        wait_for(lambda: load.done() > 6, "no load")
        lose_head(cluster, workers, chance.uniform(1.5, 3), way,
                  meanwhile=lambda: served(load, 6))
        again = load.done()
        wait_for(lambda: load.done() > again + 6, "nobody serves")
    cluster.settle()
    assert who(cluster) == before
    assert epoch(cluster) > old
    # The head's own router works again too.
    truth.check(cluster.head.ask(*REQUESTS[0], request_id=id_of(*REQUESTS[0])),
                *REQUESTS[0])


def test_a_replica_dies_while_the_head_is_away(cluster, truth):
    """Its node starts it again, its streams go on, and the head takes it as it
    finds it."""
    before = who(cluster)
    with Load(truth, [cluster.nodes["east"], cluster.nodes["west"]],
              REQUESTS) as load:
        wait_for(lambda: load.done() > 6, "no load")
        cluster.head.kill()
        name, (pid, _) = sorted(before.items())[0]
        kill(pid)
        done = load.done()
        wait_for(lambda: load.done() > done + 10, "nobody serves")
        cluster.head.start()
        wait_for(lambda: cluster.node("east")["alive"]
                 and cluster.node("west")["alive"], "they do not meet again")
    cluster.settle()
    after = who(cluster)
    assert set(after) == set(before)
    assert [one for one in before if after[one] != before[one]] == [name]


def test_what_was_acknowledged_outlives_the_head(cluster):
    """Killed right after each answer."""
    for number in range(3):
        more = application([model("kept", replicas=1)], f"kept{number}",
                           f"/kept{number}")
        status, body = cluster.head.admin(
            "PUT", "/api/serve/applications/", configuration([BASE, more]))
        cluster.head.kill()
        assert status == 200, body
        cluster.applications = {"llm": BASE, more["name"]: more}
        cluster.head.start()
        cluster.settle()
        cluster.check_applications()
    status, body = cluster.head.admin(
        "DELETE", "/api/serve/applications/kept2")
    cluster.head.kill()
    assert status == 200, body
    del cluster.applications["kept2"]
    cluster.head.start()
    cluster.settle()
    cluster.check_applications()


def test_deploy_waits_for_a_head_that_is_away(cluster, tmp_path):
    """What it was told is kept: it is the head that has to come back."""
    late = application([model("late", replicas=1, on={"late": 1})], "late",
                       "/late")
    file, said = tmp_path / "serve.yaml", tmp_path / "said"
    file.write_text(json.dumps(configuration([BASE, late])))
    with said.open("wb") as out:
        deploy = subprocess.Popen(
            cluster.head.machine.inside(BINARY, "deploy", file, "--wait",
                                        "--admin", cluster.admin_address),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "deployed" in said.read_text(), "nothing is deployed")
        cluster.head.kill()
        wait_for(lambda: "waiting for it" in said.read_text(),
                 "it does not notice that the head is away")
        cluster.head.start()
        assert deploy.poll() is None, said.read_text()
        cluster.applications["late"] = late
        cluster.add_worker("late", resources={"late": 1})
        assert deploy.wait(DEADLINE_S) == 0, said.read_text()
    finally:
        deploy.kill()
        cluster.deploy(BASE)
    assert cluster.nodes.pop("late").stop() == 0


@contextlib.contextmanager
def small_disk(cluster, folder):
    """The head's state lies on a disk of 1 MB for a while."""
    state, before, after = cluster.head.state, folder / "before", folder / "after"
    assert cluster.head.stop() == 0
    shutil.copytree(state, before)
    tool("mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", state)
    try:
        shutil.copytree(before, state, dirs_exist_ok=True)
        cluster.head.start()
        yield state
    finally:
        cluster.head.stop()
        shutil.copytree(state, after)
        tool("umount", state)
        shutil.copytree(after, state, dirs_exist_ok=True)
        cluster.head.start()


def fill(disk):
    """To the last byte; what is to be deleted for room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    out.write(bytes(size))
    return filler


def test_a_full_disk_refuses_a_deployment_and_nothing_else(cluster, truth,
                                                           tmp_path):
    more = application([model("kept", replicas=1)], "kept", "/kept")
    # More than what is free within the store's file.
    large = application([model("large", env={"TEXT": "x" * 200_000})], "large",
                        "/large")
    wanted = configuration([BASE, large])
    with small_disk(cluster, tmp_path) as disk:
        cluster.settle()
        before = who(cluster)
        with Load(truth, list(cluster.nodes.values()), REQUESTS) as load:
            filler = fill(disk)
            status, body = cluster.head.admin("PUT",
                                              "/api/serve/applications/", wanted)
            assert status >= 500 and "full" in str(body), (status, body)
            served(load, 6)
        # Nothing of it happened, nor does after a restart.
        assert who(cluster) == before
        cluster.check_applications()
        cluster.head.kill()
        filler.unlink()
        cluster.head.start()
        cluster.settle()
        cluster.check_applications()
        assert who(cluster) == before
        # With room again the same is done.
        cluster.deploy(BASE, more)
        cluster.wait_ready("kept", 1)
        cluster.deploy(BASE)
    cluster.settle()
