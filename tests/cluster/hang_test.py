"""A replica whose engine stands still while its process answers."""

import time

import pytest

from cluster import wait_for
from faults import wait_for_frames
from load import completion, open_streams
from nodes import FAULTY_ONLY, application, model


@pytest.fixture(scope="module")
def hanging(also, tmp_path_factory):
    """The file that makes the replica hang that finds it first."""
    file = tmp_path_factory.mktemp("hang") / "now"
    also(application([model("hanging", on=FAULTY_ONLY, health_check_period_s=2,
                            env={"FAULT_HANG_FILE": str(file)})],
                     "hanging", "/hanging"))
    return file


def test_a_hung_replica_is_ended_and_its_streams_go_on(hanging, cluster, truth,
                                                       chance):
    requests = []
    for i in range(6):
        path, body = completion("The clock", max_tokens=200, seed=60 + i)
        requests.append(("/hanging" + path, {**body, "model": "hanging"}))
    truth.learn(requests)
    before = cluster.pids("hanging")
    running = open_streams(cluster.head, requests)
    wait_for_frames(running, chance.randrange(1, 20))
    struck = time.monotonic()
    hanging.touch()
    wait_for(lambda: not hanging.exists(), "nobody hangs")
    for request, stream in zip(requests, running):
        answer = stream.finish()
        truth.check(answer, *request, note="one replica hung")
        cluster.note("replica hung: longest gap in a stream", answer.longest_gap())
    cluster.settle()
    after = cluster.pids("hanging")
    assert len(set(before.values()) - set(after.values())) == 1
    cluster.note("replica hung: ended and ready again", time.monotonic() - struck)
