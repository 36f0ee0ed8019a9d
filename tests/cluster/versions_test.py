"""Processes of neighbouring versions work together; of others, they say so."""

import pytest

from answers import token_ids
from cluster import wait_for
from load import completion
from nodes import BASE, FAULTY, application, model

NEIGHBOURS = {"newer": "1", "older": "-1"}
STRANGERS = {"newest": "2", "oldest": "-2"}


@pytest.fixture(scope="module")
def versions(running):
    """A worker for each, whose replicas are of another version, and a model on
    it."""
    apart = {**NEIGHBOURS, **STRANGERS}
    for name, difference in apart.items():
        running.add_worker(name, "--replica-program", FAULTY,
                           resources={name: 1},
                           environment={"FAULT_VERSIONS_APART": difference})
    yield application([model(name, replicas=1, on={name: 0.1},
                             max_constructor_retry_count=1) for name in apart],
                      "versions", "/versions")
    running.deploy(BASE)
    for name in apart:
        assert running.nodes.pop(name).stop() == 0


def served(node, path, body):
    answer = node.ask(path, body)
    assert answer.status in (200, 503), answer.body
    return answer if answer.status == 200 else None


def test_one_apart_serves_and_two_apart_are_refused_by_name(versions, cluster,
                                                            truth):
    cluster.deploy(BASE, versions, wait=False)
    request = completion("Between two", max_tokens=24, seed=101)
    expected = token_ids(truth(*request))
    for name in NEIGHBOURS:
        cluster.wait_ready(name, 1)
        path, body = request
        # The router hears of it a moment after the head.
        answer = wait_for(lambda: served(cluster.head, "/versions" + path,
                                         {**body, "model": name}),
                          f"{name} does not serve")
        assert token_ids(answer) == expected, answer.body
    for name in STRANGERS:
        wait_for(lambda: "protocol version" in cluster.model(name)["reason"],
                 f"nothing is said of {name}")
        assert not cluster.ready(name)
    cluster.deploy(BASE)  # before all is checked: two were never ready
