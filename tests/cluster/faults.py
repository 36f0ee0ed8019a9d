"""What can go wrong, done to a cluster while it answers; each checks the answers
and notes how long what took."""

import contextlib
import signal
import threading
import time

from client import read, send
from cluster import wait_for
from load import id_of, open_streams
from nodes import kill

# An end to two of the waits: ten times what is aimed at.
NOTICED_S = 15
RESUMED_S = 30

# How a worker is lost, and how it comes back.
LOSSES = {
    "killed": (lambda node: node.kill(), lambda node: node.start()),
    "its node process killed": (lambda node: node.kill_process(),
                                lambda node: node.start()),
    "frozen": (lambda node: node.freeze(), lambda node: node.thaw()),
    "cut off": (lambda node: node.machine.cut(),
                lambda node: node.machine.heal()),
    "deaf": (lambda node: node.machine.cut("in"),
             lambda node: node.machine.heal()),
    "mute": (lambda node: node.machine.cut("out"),
             lambda node: node.machine.heal()),
    "unplugged": (lambda node: node.machine.link("down"),
                  lambda node: node.machine.link("up")),
}


def kill_at(cluster, request, place, undisturbed, name="smollm2", edge="head"):
    """Asks; after that frame of a stream (0: before any), or that part of the
    time of a whole answer, the replica that works most is killed. Returns the
    answer and the victim's process id."""
    path, body = request
    cluster.wait_ready(name, 2)
    before = cluster.work(name)
    victims = []

    def strike():
        victims.append(cluster.serving(before))
        kill(victims[0])

    def at_frame(number, answer):
        if number == place:
            strike()

    streams = bool(undisturbed.frames)
    with cluster.nodes[edge].connect() as connection:
        send(connection, path, body, headers={"x-request-id": id_of(*request)})
        if not streams:
            time.sleep(place * (undisturbed.ended - undisturbed.begun))
        if not streams or place == 0:
            cluster.wait_for_work(before)
            strike()
        answer = read(connection, at_frame if streams else None)
    assert victims, "the stream ended before its frame came"
    if streams:
        cluster.note("replica killed: longest gap in its stream",
                     answer.longest_gap())
    return answer, victims[0]


def wait_for_frames(streams, count):
    wait_for(lambda: all(stream.frames() >= count or stream.answer.ended
                         for stream in streams), "the streams do not begin")


def lose_worker(cluster, truth, name, loss, requests, frames, edge="head"):
    """Loses a worker once each of the streams has so many frames, and gives it
    back when they have gone on and its replicas are ready elsewhere."""
    strike, give_back = LOSSES[loss]
    truth.learn(requests)
    node = cluster.nodes[name]
    streams = open_streams(cluster.nodes[edge], requests)
    wait_for_frames(streams, frames)

    struck = time.monotonic()
    strike(node)
    at_loss = [stream.frames() for stream in streams]
    wait_for(lambda: not cluster.node(name)["alive"], "the loss is not noticed",
             NOTICED_S)
    cluster.note(f"worker {loss}: noticed", time.monotonic() - struck)
    wait_for(lambda: all(stream.frames() > had + 8 or stream.answer.ended
                         for stream, had in zip(streams, at_loss)),
             "a stream does not go on", RESUMED_S)
    wait_for(lambda: is_elsewhere(cluster, name),
             "its replicas are not started again")
    cluster.note(f"worker {loss}: replicas ready elsewhere",
                 time.monotonic() - struck)

    returned = time.monotonic()
    give_back(node)
    wait_for(lambda: cluster.node(name)["alive"], "it does not come back")
    cluster.note(f"worker {loss}: back", time.monotonic() - returned)
    for request, stream in zip(requests, streams):
        answer = stream.finish()
        truth.check(answer, *request, note=f"{name} {loss}")
        gaps = [b - a for a, b in zip(answer.times, answer.times[1:])
                if b > struck]
        if gaps:  # it had not ended before
            cluster.note(f"worker {loss}: longest gap in a stream", max(gaps))


def flap(machine, seconds, pause=0.3):
    """Cut off and healed in turn for so long; whole at the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        machine.cut()
        time.sleep(pause)
        machine.heal()
        time.sleep(pause)


@contextlib.contextmanager
def slowed(pid, runs_s=0.02, stands_s=0.18):
    """The process stands still most of the time, never for so long that it is
    taken for dead; whole at the end."""
    is_over = threading.Event()

    def stand():
        while not is_over.wait(runs_s):
            kill(pid, signal.SIGSTOP)
            time.sleep(stands_s)
            kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stand)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def is_elsewhere(cluster, lost):
    """As many replicas are ready on the other worker as it may have."""
    return sum(replica["node"] != lost for replica in cluster.ready()) == 2


def lose_head(cluster, workers, seconds, way="killed", meanwhile=None):
    """The head is away for a while and comes back to its workers."""
    cluster.head.kill() if way == "killed" else cluster.head.stop()
    time.sleep(seconds)
    if meanwhile:
        meanwhile()
    began = time.monotonic()
    cluster.head.start()
    wait_for(lambda: all(cluster.node(node.name)["alive"] for node in workers),
             "they do not meet again")
    cluster.note("head back: all workers met", time.monotonic() - began)
