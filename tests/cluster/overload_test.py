"""Ten times what the cluster can do, at several routers: what is taken is served
exactly, the others are told when to come again, and nothing of it is left."""

import collections
import dataclasses
import re
import threading
import time

import pytest

import client
from answers import token_ids
from cluster import wait_for
from load import Load, chat, completion, id_of
from nodes import BASE, SETTINGS, Node, application, model, resident_kb


def crowded(**more):
    """A replica on each of two nodes, that computes four choices at a time."""
    return application([model("crowded", replicas=2, max_replicas_per_node=1,
                              engine={"max_num_seqs": 4}, **more)],
                       "crowded", "/crowded")


def to_it(path_and_body):
    path, body = path_and_body
    return "/crowded" + path, {**body, "model": "crowded"}


REQUESTS = [to_it(completion("The market", max_tokens=32, seed=151)),
            to_it(completion("At noon", max_tokens=16, n=2, seed=152)),
            to_it(chat("Who is there?", max_tokens=32, seed=153, stream=False,
                       stream_options=None))]
ROUTERS = ("head", "east", "west")
GROWN_KB_MAX = 24 << 10  # of a node's process
PATIENT_MS = 80_000
KEYS = [{"key": "sk-the-loud-one", "name": "loud", "weight": 3},
        {"key": "sk-the-quiet-one", "name": "quiet"}]


class Flood(threading.Thread):
    """So many requests a second, and ten for each that is served, whatever
    becomes of them, until the block ends. Each ends in one of three ways: see
    `outcome`; but with `leaves` those that wait then go away instead."""

    def __init__(self, truth, nodes, rate, limit_ms, headers=None, leaves=False):
        super().__init__(daemon=True)
        self.truth, self.nodes, self.rate = truth, nodes, rate
        self.headers = {"x-request-timeout-ms": str(limit_ms),
                        **(headers or {})}
        self.leaves = leaves
        self.enough = threading.Event()
        self.streams = []  # (request, stream)
        self.under_way = []  # streams
        self.ended = collections.Counter()  # by status
        self.counting = threading.Lock()
        self.error = None
        self.ends = {"served": 0, "refused": 0, "timed out": 0}

    def run(self):
        try:
            while not self.enough.is_set():
                number = len(self.streams)
                if self.is_due(number):
                    self.add(self.nodes[number % len(self.nodes)],
                             REQUESTS[number % len(REQUESTS)])
                else:
                    self.enough.wait(0.01)
        except Exception as error:  # a connection is not even accepted
            self.error = error

    def is_due(self, number):
        """The machine may be faster now than when the peak was measured."""
        return (number < self.rate * (time.monotonic() - self.begun)
                or number < 10 * self.count(200))

    def add(self, node, request):
        stream = client.Stream(
            node.connect(), *request,
            headers={**self.headers, "x-request-id": id_of(*request)})
        self.streams.append((request, stream))
        with self.counting:
            self.under_way.append(stream)

    def count(self, *statuses):
        """Answers so far."""
        with self.counting:
            now = [(stream, stream.answer.ended) for stream in self.under_way]
            self.under_way = [stream for stream, ended in now if not ended]
            self.ended.update(stream.answer.status for stream, ended in now
                              if ended)
            return sum(self.ended[status] for status in statuses)

    def goes_on(self):
        """Some are served, and some refused."""
        served, refused = self.count(200), self.count(429, 503)
        wait_for(lambda: self.count(200) > served + 6, "nobody is served")
        wait_for(lambda: self.count(429, 503) > refused + 24,
                 "nobody is refused")

    def __enter__(self):
        self.begun = time.monotonic()
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.enough.set()
        self.join()
        if self.leaves:
            self.streams = [one for one in self.streams if not one[1].leave()]
        answers = [(request, stream.finish()) for request, stream in self.streams]
        if kind:
            return
        assert not self.error, self.error
        for request, answer in answers:
            self.ends[self.outcome(request, answer)] += 1
        print(f"{len(answers)} asked at {self.rate:.1f} a second: {self.ends}")

    def outcome(self, request, answer):
        if answer.status in (429, 503):
            assert answer.whole, answer
            assert re.fullmatch("[1-9][0-9]*", answer.headers["retry-after"])
            assert answer.json()["error"]["message"]
            return "refused"
        if answer.status == 408:
            assert answer.whole, answer
            assert answer.json()["error"]["code"] == "request_timeout"
            return "timed out"
        if answer.frames and b'"request_timeout"' in answer.frames[-1]:
            self.check_begun(request, answer)
            return "timed out"
        self.truth.check(answer, *request, note="in a flood")
        return "served"

    def check_begun(self, request, answer):
        """It is the true answer as far as it goes."""
        assert b"[DONE]" not in answer.frames
        assert answer.events()[-1]["error"]["code"] == "request_timeout"
        undisturbed = token_ids(self.truth(*request))
        for index, ids in token_ids(answer).items():
            assert ids == undisturbed[index][:len(ids)]


@pytest.fixture(scope="module")
def routers(running):
    return [running.nodes[name] for name in ROUTERS]


@pytest.fixture(scope="module")
def peak(also, truth, routers):
    """Answers a second that the cluster gives to some that wait for them."""
    also(crowded())
    with Load(truth, routers, REQUESTS, clients=12) as load:
        wait_for(lambda: load.done() > 12, "no load")
        done, begun = load.done(), time.monotonic()
        wait_for(lambda: load.done() >= done + 24, "no load")
        return (load.done() - done) / (time.monotonic() - begun)


def time_of(answers, peak):
    """In ms, so that a slow machine has more; less than clients wait for."""
    return min(int(answers * 1000 / peak), PATIENT_MS)


def memory_kb(nodes):
    return {node.name: resident_kb(node.process.pid) for node in nodes}


def check_quiet(cluster, truth, routers):
    """All is over, and a fresh request is served at every router."""
    cluster.settle()
    for node, request in zip(routers, REQUESTS):
        answer = node.ask(*request, request_id=id_of(*request))
        truth.check(answer, *request, note="after the flood")


def test_beyond_a_full_queue_all_are_refused(cluster, truth, routers, peak):
    """Who is taken has time enough: each is served whole."""
    cluster.deploy(BASE, crowded(max_queued_requests=24))
    before = most = memory_kb(routers)
    with Flood(truth, routers, 10 * peak, PATIENT_MS) as flood:
        for _ in range(5):
            flood.goes_on()
            most = {name: max(kb, most[name])
                    for name, kb in memory_kb(routers).items()}
    assert flood.ends["timed out"] == 0
    grown = {name: most[name] - before[name] for name in most}
    print(f"memory grew by {grown} KB")
    assert max(grown.values()) < GROWN_KB_MAX
    check_quiet(cluster, truth, routers)
    cluster.deploy(BASE, crowded())


def test_who_would_be_too_late_is_refused_at_once(cluster, truth, routers, peak):
    """The queue has an end because of the time limits alone. What was begun and
    takes longer than was thought ends by its limit, and says so."""
    limit_ms = time_of(80, peak)
    with Flood(truth, routers, 10 * peak, limit_ms) as flood:
        for _ in range(5):
            flood.goes_on()
    took = sorted(stream.answer.ended - stream.answer.begun
                  for _, stream in flood.streams
                  if stream.answer.status in (429, 503))
    # Not after it has waited for its limit; a few are, when it is their turn.
    assert took[len(took) // 2] < limit_ms / 1000 / 4
    check_quiet(cluster, truth, routers)


@dataclasses.dataclass
class Door:
    """A router as somebody with a key asks it."""
    node: Node
    headers: dict

    @property
    def name(self):
        return self.node.name

    def ask(self, path, body, request_id):
        return self.node.ask(path, body, request_id=request_id,
                             headers=self.headers)


def authorization(name):
    key = next(one["key"] for one in KEYS if one["name"] == name)
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(params=[-1, 60])
def keys(cluster, truth, peak, request):
    """Only they are let in. With a short queue too, which turns over in the time
    in which routers hear of each other's."""
    def statuses():
        return {node.ask("/crowded/v1/models").status
                for node in cluster.nodes.values()}
    truth.learn(REQUESTS)
    cluster.deploy(BASE, crowded(max_queued_requests=request.param),
                   troupe={**SETTINGS, "api_keys": KEYS})
    wait_for(lambda: statuses() == {401}, "not all know the keys")
    yield
    cluster.deploy(BASE, crowded())
    wait_for(lambda: statuses() == {200}, "some still want keys")


def test_a_flood_of_one_tenant_takes_nothing_from_another(truth, routers, peak,
                                                          keys):
    """The other asks for the same, within the same time, and is never refused,
    at no router; though the loud one has three times its share."""
    limit_ms = time_of(160, peak)
    doors = [Door(node, {"x-request-timeout-ms": str(limit_ms),
                         **authorization("quiet")}) for node in routers]
    with Flood(truth, routers, 10 * peak, limit_ms,
               authorization("loud"), leaves=True) as flood:
        flood.goes_on()
        with Load(truth, doors, REQUESTS, clients=2) as load:
            for _ in range(3):
                done = load.done()
                wait_for(lambda: load.done() > done + 2, "nobody is served")
                flood.goes_on()
    took = sorted(answer.ended - answer.begun for _, answer in load.answers)
    print(f"{len(took)} of the quiet one, in {took[0]:.1f} to {took[-1]:.1f} s; "
          f"the time limit was {limit_ms / 1000:.1f} s")
