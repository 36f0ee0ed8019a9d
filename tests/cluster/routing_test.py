"""Which replica gets a request: what began alike goes where it began."""

import itertools

import pytest

import client
from cluster import wait_for
from nodes import application, model

PROMPTS = [f"Story number {n}. " + f"{word} came to the river and waited. " * 12
           for n, word in enumerate(["Anna", "Bert", "Clara", "Dora", "Emil",
                                     "Frieda", "Gustav", "Helene"])]
POLICIES = ("session", "prefix", "kv_aware")


@pytest.fixture(scope="module")
def routed(also):
    """A model of two replicas for each policy."""
    also(application([model(name, replicas=2, request_router_config={
        "request_router_class": name}) for name in POLICIES],
        "routed", "/routed"))


def ask(node, name, prompt, session):
    answer = client.ask(node.connect(), "/routed/v1/completions", {
        "model": name, "prompt": prompt, "max_tokens": 1, "temperature": 0},
        headers={"x-session-id": session})
    assert answer.status == 200, answer.body
    return answer.json()["usage"]


def cached_tokens(node, name, number):
    """Of a prompt of some 100 tokens, asked for one."""
    usage = ask(node, name, PROMPTS[number], f"story-{number}")
    return usage["prompt_tokens_details"]["cached_tokens"]


def reach_both(node, name):
    """Until its router has sent something to both replicas: one that it does
    not reach yet has its share later, and who began elsewhere moves."""
    numbers = itertools.count()

    def both():
        number = next(numbers)
        ask(node, name, f"{number} is a number", f"early-{number}")
        counts = node.sent(name).values()
        return len(counts) == 2 and min(counts) > 0

    wait_for(both, "a replica gets nothing")


@pytest.mark.parametrize("name", POLICIES)
def test_what_began_alike_goes_where_it_began(cluster, routed, name):
    numbers = range(len(PROMPTS))
    reach_both(cluster.head, name)
    before = cluster.head.sent(name)
    for number in numbers:
        assert cached_tokens(cluster.head, name, number) < 64
    for _ in range(2):
        for number in numbers:
            assert cached_tokens(cluster.head, name, number) >= 64
    sent = [count - before[replica]
            for replica, count in cluster.head.sent(name).items()]
    assert len(sent) == 2 and sum(sent) == 3 * len(PROMPTS)
    assert min(sent) > 0 and all(count % 3 == 0 for count in sent), sent


@pytest.mark.parametrize("name", ["session", "kv_aware"])
def test_every_router_finds_them(cluster, routed, name):
    """By the session alone, or by what the replicas tell."""
    numbers = range(len(PROMPTS))
    for number in numbers:
        cached_tokens(cluster.head, name, number)
    other = cluster.nodes["west"]
    # The last prompt's blocks may still be on their way.
    for number in numbers[:-1]:
        assert cached_tokens(other, name, number) >= 64
