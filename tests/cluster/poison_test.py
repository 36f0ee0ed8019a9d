"""A request that ends every replica that computes it, among others."""

import re

import pytest

from faults import wait_for_frames
from load import completion, id_of, open_streams
from nodes import FAULTY_ONLY, application, kill, model

MAGIC = [4711, 815, 4711]
LATE = [1234, 4321, 1234]
GREEDY = [2345, 5432, 2345]
MEMORY_BYTES = 1 << 30  # more than the model takes


@pytest.fixture(scope="module")
def poisonable(also):
    """Models that die of MAGIC at once, of LATE after five tokens, and of
    GREEDY by their own memory limit."""
    def with_env(**env):
        return {"on": FAULTY_ONLY, "env": env}
    bounded = model("greedy", replicas=2, **with_env(
        FAULT_ABORT_PROMPT=",".join(map(str, GREEDY)),
        FAULT_ABORT_BY="memory"))
    bounded["deployment_config"]["ray_actor_options"]["memory"] = MEMORY_BYTES
    also(application(
        [model("early", replicas=2, **with_env(
            FAULT_ABORT_PROMPT=",".join(map(str, MAGIC)))),
         model("late", replicas=2, **with_env(
             FAULT_ABORT_PROMPT=",".join(map(str, LATE)),
             FAULT_ABORT_OUTPUT="5")), bounded], "poison", "/poison"))


def to(name, prompt, **more):
    path, body = completion(prompt, **more)
    return "/poison" + path, {**body, "model": name}


def losses(cluster, name, before):
    return sum(replica["restarts"] for replica in
               cluster.model(name)["replicas"]) - before


def restarts(cluster, name):
    return losses(cluster, name, 0)


def incident(body):
    """The id in an error's body, for the operator's logs."""
    error = body["error"]
    found = re.search(r"[0-9a-f]{8,}", error["message"])
    assert found, error
    return found[0]


@pytest.mark.parametrize("name, magic", [
    ("early", MAGIC), ("late", LATE), ("greedy", GREEDY)])
def test_one_poison_among_32_streams(poisonable, cluster, truth, chance, name,
                                     magic):
    requests = [to(name, [(i * 31 + j * 7) % 30000 + 200 for j in range(12)],
                   max_tokens=24, seed=80 + i) for i in range(31)]
    truth.learn(requests)
    before = restarts(cluster, name)
    said = len(cluster.nodes["south"].said())
    poison = to(name, [9, 10, *magic, 11, 12], max_tokens=24, seed=80)

    running = open_streams(cluster.head, requests)
    wait_for_frames(running, chance.randrange(1, 6))
    refused = cluster.head.ask(*poison)
    for request, stream in zip(requests, running):
        truth.check(stream.finish(), *request, note="beside a poison")

    if name != "late":  # nothing had reached the client
        assert refused.status == 500, (refused.status, refused.body)
        incident(refused.json())
    else:
        assert refused.status == 200
        # The last ones died with the replica, on their way.
        assert 1 <= len(token_frames(refused)) <= 5
        incident(refused.events()[-1])
        assert b"[DONE]" not in refused.frames
    cluster.settle()
    assert 1 <= losses(cluster, name, before) <= 2
    # What the C++ runtime says before it aborts a process.
    of_memory = "std::bad_alloc" in cluster.nodes["south"].said()[said:]
    assert of_memory == (name == "greedy")

    # It is known now, at every time and whatever else is asked for.
    known = restarts(cluster, name)
    for _ in range(3):
        again = cluster.head.ask(*poison)
        assert 400 <= again.status <= 599, again.body
    assert restarts(cluster, name) == known
    # Everybody else is served.
    truth.check(cluster.head.ask(*requests[0], request_id=id_of(*requests[0])),
                *requests[0])


def token_frames(answer):
    return [event for event in answer.events() if event.get("choices")]


def test_a_replica_killed_by_others_makes_nobody_guilty(poisonable, cluster,
                                                        truth):
    """SIGKILL is nobody's fault, however often it comes."""
    request = to("early", "Far away", max_tokens=100, seed=99)
    undisturbed = truth(*request)
    at = {10, 30, 50, 70}
    work = [cluster.work("early")]

    def strike(number, _):
        if number in at:
            victim = cluster.serving(work[0])
            kill(victim)
            work[0] = cluster.work_without([victim], "early")

    answer = cluster.head.ask(*request, at_frame=strike,
                              request_id=id_of(*request))
    truth.check(answer, *request)
    truth.check(cluster.head.ask(*request, request_id=id_of(*request)),
                *request)
    assert len(undisturbed.frames) > max(at)
