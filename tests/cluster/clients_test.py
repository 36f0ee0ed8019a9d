"""Clients that leave, that are slow, that are too many: what they used is free
again, and everybody else is served as if they were not there."""

import contextlib
import os
import resource
import socket
import subprocess
import time

import pytest

from client import encode, read, reset, send
from cluster import wait_for
from load import Load, chat, completion, id_of, open_streams
from nodes import (BASE, FAULTY_ONLY, SETTINGS, application, model,
                   resident_kb)

PROBE = completion("The probe", max_tokens=8, seed=121)


def probe(node, truth):
    truth.check(node.ask(*PROBE, request_id=id_of(*PROBE)), *PROBE)


def test_a_client_may_leave_at_any_byte(cluster, truth, chance):
    """In the request, the prompt, a stream, the queue; by FIN and by RST. That
    all blocks are free afterwards is checked after each test."""
    kinds = [completion([(i * 41) % 40000 + 100 for i in range(700)],
                        max_tokens=300),
             completion("A long tale", max_tokens=400, n=3),
             chat("Talk.", max_tokens=400, stream=False, stream_options=None)]
    drawn = cluster.totals()
    for _ in range(60):
        node = cluster.nodes[chance.choice(["head", "east", "west"])]
        path, body = chance.choice(kinds)
        connection = node.connect()
        payload = encode("POST", path, body, {})
        if chance.random() < 0.2:
            connection.sendall(payload[:chance.randrange(1, len(payload))])
        else:
            connection.sendall(payload)
            connection.settimeout(chance.choice([0.001, 0.02, 0.1]))
            with contextlib.suppress(TimeoutError):
                connection.recv(chance.randrange(1, 4000))
        chance.choice([reset, socket.socket.close])(connection)
    cluster.settle()
    now = cluster.totals()
    assert set(now) == set(drawn)  # nobody died of it
    # Nowhere near what was asked for has been computed.
    computed = sum(now[pid]["output_tokens"] - drawn[pid]["output_tokens"]
                   for pid in now)
    assert computed < 60 * 400 / 4
    probe(cluster.head, truth)


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_only_ends_its_sending_is_answered(cluster, truth,
                                                         streams):
    """Long before its answer is there."""
    more = {} if streams else {"stream": False, "stream_options": None}
    requests = [completion("The last word", max_tokens=40, seed=123, **more),
                chat("And then?", max_tokens=40, seed=124, n=2, **more)]
    truth.learn(requests)
    for node in cluster.nodes.values():
        for request in requests:
            with node.connect() as connection:
                send(connection, *request,
                     headers={"x-request-id": id_of(*request)})
                connection.shutdown(socket.SHUT_WR)
                truth.check(read(connection), *request, note="half closed")


def test_a_client_that_ends_its_sending_may_leave_later(cluster, truth):
    """Its request is cancelled then."""
    drawn = cluster.totals()
    for streams in (True, False):
        for _ in range(4):
            connection = cluster.head.connect()
            send(connection, *completion("Endless", max_tokens=900,
                                         stream=streams))
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1)  # it is being answered
            connection.close()
    cluster.settle()
    now = cluster.totals()
    assert set(now) == set(drawn)
    computed = sum(now[pid]["output_tokens"] - drawn[pid]["output_tokens"]
                   for pid in now)
    assert computed < 8 * 900 / 4
    probe(cluster.head, truth)


@contextlib.contextmanager
def many_files(*pids):
    """Room for many connections in these processes."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE)
              for pid in pids}
    try:
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (4096, hard))
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="module")
def talking(also):
    """A model that draws faster than any client reads."""
    also(application([model("talking", replicas=2, on=FAULTY_ONLY,
                            env={"FAULT_TALK": "1"})], "talking", "/talking"))


def test_a_thousand_stalled_readers_cost_little_and_disturb_nobody(
        talking, cluster, truth):
    """They ask for a stream of more than 200 KB and never read."""
    node = cluster.nodes["east"]
    probe(node, truth)
    path, body = completion("Talk", max_tokens=800)
    request = "/talking" + path, {**body, "model": "talking"}
    before = resident_kb(node.process.pid)
    most_kb = most_waiting = 0

    def all_is_drawn():
        nonlocal most_kb, most_waiting
        most_kb = max(most_kb, resident_kb(node.process.pid))
        most_waiting = max(most_waiting,
                           node.metrics()["troupe_requests_in_flight"])
        loads = cluster.totals("talking").values()
        # One model gets so many of the 1024 places; the others are refused.
        return most_waiting >= 800 and not any(load["running"]
                                               for load in loads)

    with many_files(os.getpid(), node.process.pid), contextlib.ExitStack() as streams:
        for _ in range(1000):
            connection = node.connect()
            streams.callback(reset, connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            send(connection, *request)
        with Load(truth, [node, cluster.head], [PROBE], clients=2) as load:
            wait_for(all_is_drawn, "not all is drawn")
            done = load.done()
            wait_for(lambda: load.done() > done + 6, "others are not served")
            all_is_drawn()
        print(f"for 1,000 stalled readers: {most_kb - before} KB")
        assert most_kb - before < 100 * 1024
    cluster.settle()


def test_slow_senders_keep_nobody_out(cluster, truth):
    """500 connections that send a header, or a body, byte by byte."""
    node = cluster.nodes["west"]
    payload = encode("POST", PROBE[0], PROBE[1], {})
    in_body = payload.index(b"\r\n\r\n") + 8
    slow = [(node.connect(), at) for at in [30, in_body] * 250]
    try:
        for connection, at in slow:
            connection.sendall(payload[:at])
        for more in range(3):
            for connection, at in slow:
                with contextlib.suppress(ConnectionError):  # it was too slow
                    connection.sendall(payload[at + more:at + more + 1])
            probe(node, truth)
    finally:
        for connection, _ in slow:
            connection.close()


def test_what_is_too_much_is_refused_at_once(cluster, truth):
    """Ten times the limit: those let in are served exactly, the others get a 503
    that says when to come again; then all is as before."""
    settings = {"troupe": {**SETTINGS, "max_requests_in_flight": 12}}
    request = completion("Too many", max_tokens=40, seed=122)
    truth(*request)
    before = cluster.pids()
    cluster.deploy(BASE, **settings)
    try:
        crowd = open_streams(cluster.head, [request] * 120)
        answers = [stream.finish() for stream in crowd]
        served = [one for one in answers if one.status == 200]
        refused = [one for one in answers if one.status != 200]
        assert len(served) >= 12 and refused
        for one in served:
            truth.check(one, *request)
        for one in refused:
            assert one.status == 503, (one.status, one.body)
            assert int(one.headers["retry-after"]) >= 1
            assert one.json()["error"]["message"]
            cluster.note("overload: a refusal", one.ended - one.begun)
        probe(cluster.head, truth)
    finally:
        cluster.deploy(BASE)
    assert cluster.pids() == before


def test_a_router_out_of_descriptors_recovers(cluster, truth):
    """No new ones for a while: it does not spin, and serves again after."""
    node = cluster.nodes["east"]
    probe(node, truth)
    pid = node.process.pid
    limits = subprocess.run(["prlimit", "--nofile", "--noheadings", "--raw",
                             "--output", "SOFT,HARD", "--pid", str(pid)],
                            capture_output=True, text=True, check=True).stdout
    soft, hard = limits.split()
    used = len(list_fds(pid))
    crowd = []
    subprocess.run(["prlimit", f"--nofile={used + 20}:{hard}", "--pid",
                    str(pid)], check=True)
    try:
        for _ in range(200):
            connection = node.machine.connect(8000, seconds=2)
            crowd.append(connection)
        began, busy = time.monotonic(), cpu_s(pid)
        time.sleep(1)
        spent = (cpu_s(pid) - busy) / (time.monotonic() - began)
        assert spent < 0.5, f"it spins: {spent:.2f} of a core"
        # Its replicas' and the head's connections are as they were.
        assert cluster.node("east")["alive"]
    finally:
        subprocess.run(["prlimit", f"--nofile={soft}:{hard}", "--pid",
                        str(pid)], check=True)
        for connection in crowd:
            connection.close()
    wait_for(lambda: healthy(node), "it does not recover")
    probe(node, truth)


def list_fds(pid):
    return os.listdir(f"/proc/{pid}/fd")


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def healthy(node):
    with contextlib.suppress(OSError):
        return node.ask("/-/healthz").status == 200
    return False
