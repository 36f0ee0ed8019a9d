"""The number of replicas follows the load of several routers, with the head
killed in between, and no request notices."""

import threading

import client
from cluster import wait_for
from faults import lose_head
from nodes import application, model

BODY = {"model": "scaled", "prompt": "Once upon a time", "max_tokens": 24,
        "temperature": 0, "ignore_eos": True}


class Clients:
    """So many, over these nodes, that each ask again once they are answered,
    until the block ends."""

    def __init__(self, nodes, count):
        self.nodes = nodes
        self.is_over = threading.Event()
        self.answers, self.errors = [], []
        self.threads = [threading.Thread(target=self.ask_on,
                                         args=(nodes[i % len(nodes)],))
                        for i in range(count)]

    def ask_on(self, node):
        while not self.is_over.is_set():
            answer = client.ask(node.connect(), "/scaled/v1/completions", BODY)
            if answer.status == 200 and answer.whole:
                self.answers.append(answer.json()["choices"][0]["text"])
            else:
                self.errors.append((answer.status, answer.body))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


def test_one_to_four_and_back_without_an_error(cluster, also, chance):
    also(application([model("scaled", replicas=None, autoscaling_config={
        "min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8,
        "downscale_delay_s": 2})], "scaled", "/scaled"))
    workers = [cluster.nodes["east"], cluster.nodes["west"]]
    assert len(cluster.ready("scaled")) == 1
    with Clients(workers, 64) as clients:
        wait_for(lambda: len(cluster.ready("scaled")) == 4, "it stays small")

        def served():
            before = len(clients.answers)
            wait_for(lambda: len(clients.answers) > before + 64,
                     "nobody serves")

        lose_head(cluster, workers, chance.uniform(0.5, 1.5), "killed",
                  meanwhile=served)
        served()
        wait_for(lambda: len(cluster.ready("scaled")) == 4, "it shrank")
    wait_for(lambda: cluster.model("scaled")["replicas_wanted"] == 1,
             "it stays large")
    assert clients.errors == []
    assert len(set(clients.answers)) == 1
