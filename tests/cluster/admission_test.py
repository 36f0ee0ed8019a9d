"""Bounds are the cluster's, whichever router a request comes to."""

import threading

import client
from cluster import wait_for
from nodes import application, model

BODY = {"model": "narrow", "prompt": "Once upon a time", "temperature": 0,
        "ignore_eos": True}
LONG = 900  # tokens: computed until all others have come
SHORT = 8


class Asking:
    """Requests to one node, each on a thread of its own until answered."""

    def __init__(self, node):
        self.node = node
        self.statuses = []
        self.threads = []

    def add(self, count, max_tokens=SHORT):
        for _ in range(count):
            thread = threading.Thread(target=self.one, args=(max_tokens,))
            self.threads.append(thread)
            thread.start()

    def one(self, max_tokens):
        answer = client.ask(self.node.connect(), "/narrow/v1/completions",
                            {**BODY, "max_tokens": max_tokens})
        self.statuses.append(answer.status)

    def join(self):
        for thread in self.threads:
            thread.join()


def gauge(node, name):
    status, text = node.admin("GET", "/metrics")
    assert status == 200, text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith((name + " ", name + "{")))


def waiting(node):
    return gauge(node, "ray_serve_deployment_queued_queries")


def at_replicas(node):
    return gauge(node, "ray_serve_num_ongoing_requests_at_replicas")


def elsewhere(node):
    return gauge(node, "troupe_router_choices_waiting_elsewhere")


def test_a_models_queue_is_one_over_all_routers(cluster, also):
    also(application([model("narrow", replicas=1, max_queued_requests=4,
                            engine={"max_num_seqs": 1})], "narrow", "/narrow"))
    head, west = Asking(cluster.head), Asking(cluster.nodes["west"])
    # One is computed, one is there beside it, three wait. (Five at once would
    # be one too many, if the first is not sent yet when the last one comes.)
    head.add(1, LONG)
    wait_for(lambda: at_replicas(cluster.head) == 1, "one is not sent")
    head.add(1)
    wait_for(lambda: at_replicas(cluster.head) == 2, "two are not sent")
    head.add(3)
    wait_for(lambda: waiting(cluster.head) == 3, "the head has no queue")
    wait_for(lambda: elsewhere(cluster.nodes["west"]) == 3, "west is not told")
    # Two of these go to the replica, one more may wait.
    west.add(8)
    wait_for(lambda: len(west.statuses) >= 5, "none was refused")
    assert west.statuses.count(503) >= 5
    head.join()
    west.join()
    assert head.statuses == [200] * 5
    assert west.statuses.count(200) >= 1
    assert set(west.statuses) == {200, 503}
    wait_for(lambda: elsewhere(cluster.head) == 0
             and elsewhere(cluster.nodes["west"]) == 0, "they still wait")
