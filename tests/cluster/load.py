"""Requests whose answers are known, one or many."""

import hashlib
import json
import threading
import time

import client
from answers import check_outcome, difference

WHOLE_STREAM = {"stream": True, "stream_options": {"include_usage": True},
                "return_token_ids": True, "ignore_eos": True}
PENALTIES = {"presence_penalty": 1.2, "frequency_penalty": 0.7,
             "repetition_penalty": 1.3}


def completion(prompt="Once upon a time", **more):
    return "/v1/completions", {"model": "smollm2", "prompt": prompt,
                               "temperature": 1, "seed": 1, **WHOLE_STREAM,
                               **more}


def chat(content="What is the capital of France?", **more):
    return "/v1/chat/completions", {
        "model": "smollm2", "messages": [{"role": "user", "content": content}],
        "temperature": 1, "seed": 1, **WHOLE_STREAM, **more}


def id_of(path, body):
    """Equal requests have equal ids, so that their answers are equal."""
    return hashlib.sha256(json.dumps([path, body]).encode()).hexdigest()[:16]


def open_streams(node, requests):
    """They run at once, and can be looked at meanwhile."""
    return [client.Stream(node.connect(), *request, headers={
        "x-request-id": id_of(*request)}) for request in requests]


class Truth:
    """What an undisturbed run answers, asked once."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.known = {}

    def __call__(self, path, body):
        key = id_of(path, body)
        if key not in self.known:
            answer = self.cluster.head.ask(path, body, request_id=key)
            check_outcome(answer, body.get("n", 1))
            self.known[key] = answer
        return self.known[key]

    def learn(self, requests):
        """Several at once."""
        new = [one for one in requests if id_of(*one) not in self.known]
        for request, stream in zip(new, open_streams(self.cluster.head, new)):
            answer = stream.finish()
            check_outcome(answer, request[1].get("n", 1))
            self.known[id_of(*request)] = answer

    def check(self, answer, path, body, note=""):
        """The same as undisturbed, to the byte, and ended once."""
        apart = difference(self(path, body), answer)
        assert not apart, f"{note}: undisturbed and here:\n{apart}"
        check_outcome(answer, body.get("n", 1))


class Load:
    """Clients that ask, each one request after the other, while something
    happens: `with Load(...)`. Every answer must be that of an undisturbed run."""

    def __init__(self, truth, nodes, requests, clients=6):
        truth.learn(requests)
        self.truth = truth
        self.nodes = nodes
        self.requests = requests
        self.enough = threading.Event()
        self.answers = []  # (request, answer)
        self.errors = []
        self.threads = [threading.Thread(target=self.run, args=(i,),
                                         daemon=True) for i in range(clients)]

    def run(self, number):
        place = number
        while not self.enough.is_set():
            node = self.nodes[place % len(self.nodes)]
            request = self.requests[place % len(self.requests)]
            place += 1
            try:
                answer = node.ask(*request, request_id=id_of(*request))
            except Exception as error:
                self.errors.append((node.name, error))
                time.sleep(0.05)
                continue
            self.answers.append((request, answer))

    def done(self):
        return len(self.answers)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.enough.set()
        for thread in self.threads:
            thread.join(2 * client.PATIENCE_S)
        if kind:
            return
        assert not any(thread.is_alive() for thread in self.threads)
        assert not self.errors, self.errors[:3]
        assert self.answers
        for request, answer in self.answers:
            self.truth.check(answer, *request, note="under load")
