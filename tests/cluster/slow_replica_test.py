"""A replica that computes, but slowly, gets less than the others, and its part
again once it is as fast."""

from cluster import wait_for
from faults import slowed
from load import Load, chat, completion
from nodes import application, model

UNEVEN = application([model("uneven", replicas=3, max_replicas_per_node=2)],
                     "uneven", "/uneven")


def uneven(path_and_body):
    path, body = path_and_body
    return "/uneven" + path, {**body, "model": "uneven"}


REQUESTS = [uneven(completion("The tortoise", max_tokens=16, seed=161)),
            uneven(completion("The hare", max_tokens=12, seed=162)),
            uneven(chat("Who wins?", max_tokens=16, seed=163, stream=False,
                        stream_options=None))]


def sent(nodes):
    """Choices sent to each replica, over these routers."""
    sums = {}
    for node in nodes:
        for replica, count in node.sent("uneven").items():
            sums[replica] = sums.get(replica, 0) + count
    return sums


def next_sent(nodes, total):
    """Where the next choices go, so many at least."""
    before = sent(nodes)

    def parts():
        now = {replica: count - before.get(replica, 0)
               for replica, count in sent(nodes).items()}
        return now if sum(now.values()) >= total else None
    return wait_for(parts, "nobody is served")


def test_a_slow_replica_gets_less_until_it_is_fast_again(cluster, also, truth,
                                                         chance):
    also(UNEVEN)
    nodes = [cluster.head, cluster.nodes["west"]]
    before = cluster.pids("uneven")
    slow = chance.choice(sorted(before))
    with Load(truth, nodes, REQUESTS, clients=8):
        assert set(next_sent(nodes, 24)) == set(before)
        with slowed(before[slow]):
            next_sent(nodes, 24)  # until then they do not know
            parts = next_sent(nodes, 80)
        of_slow = parts.pop(slow)
        print(f"sent to the slow one {of_slow:.0f}, to the others {parts}")
        assert of_slow < min(parts.values()) / 2
        wait_for(lambda: next_sent(nodes, 40)[slow] >= 8, "it is left out")
    assert cluster.pids("uneven") == before
