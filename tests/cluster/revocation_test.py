"""A worker is shut out: with the certificate that it has it gets no word in
anywhere, whatever is started again; with a new token it is a node like others."""

import contextlib
import select
import shutil
import subprocess

import pytest

from cluster import wait_for
from faults import is_elsewhere, wait_for_frames
from load import completion, id_of, open_streams
from nodes import BINARY, DEADLINE_S, PORTS
from sockets_test import inner_ports

SECONDS = 3  # to be closed, or to hear nothing


def streams():
    return [completion("Out of the town", max_tokens=160, seed=70 + i,
                       presence_penalty=1.0) for i in range(4)]


def shaken(machine, folder, address, port):
    """A handshake with the certificate in `folder`, and what comes of it: the
    application's first bytes, and openssl's words on the end."""
    line = ["openssl", "s_client", "-connect", f"{address}:{port}", "-tls1_3",
            "-quiet", "-cert", folder / "certificate.pem",
            "-key", folder / "key.pem"]
    # A line that a blob listener answers; CAF speaks first.
    with subprocess.Popen(machine.inside(*line), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          bufsize=0) as begun:
        with contextlib.suppress(BrokenPipeError):
            begun.stdin.write(b"GET " + b"0" * 64 + b" 0 0\n")
        speaks, _, _ = select.select([begun.stdout], [], [], SECONDS)
        heard = begun.stdout.read(4096) if speaks else b""
        begun.kill()
        words = begun.stderr.read()
    return heard, words.decode(errors="replace")


def outcome(machine, folder, address, port):
    """The same, but CAF's timer may end a handshake that is under way."""
    for _ in range(5):
        heard, words = shaken(machine, folder, address, port)
        if heard or "certificate revoked" in words:
            break
    return heard, words


def check_shut_out(cluster, machine, folder, good):
    """Nowhere a byte for the one, everywhere some for the other."""
    places = [(cluster.head.machine.address, PORTS["cluster"])]
    for node in cluster.nodes.values():
        replicas = {one.pid for one in node.family()} - {node.process.pid}
        places += [(address, port) for pid, address, port in inner_ports(node)
                   if pid in replicas]
    assert len(places) >= 3, places
    for address, port in places:
        heard, words = outcome(machine, folder, address, port)
        assert heard == b"" and "certificate revoked" in words, (
            address, port, heard, words)
        heard, words = outcome(machine, good, address, port)
        assert heard, (address, port, words)


def refused_to_start(node, arguments):
    """What `troupe start` says when it ends by itself."""
    done = subprocess.run(
        node.machine.inside(BINARY, "start", *arguments, "--block"),
        cwd=node.folder, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode in (1, 2), done
    return done.stdout + done.stderr


def without(arguments, option):
    at = arguments.index(option)
    return arguments[:at] + arguments[at + 2:]


def instead(arguments, option, value):
    return without(arguments, option) + [option, value]


@pytest.fixture
def shut_out(cluster):
    """Lets the node in again, whatever happens."""
    nodes = []
    yield nodes.append
    for node in nodes:
        cluster.token = cluster.verb("token", "create", "--state-dir",
                                     cluster.head.state).strip()
        if not node.runs():
            node.arguments = instead(node.arguments, "--token",
                                     cluster.token)
            node.start()
    cluster.settle()


def test_a_revoked_worker_is_gone_and_cannot_come_back(cluster, truth, chance,
                                                       shut_out, tmp_path):
    name = chance.choice([replica["node"] for replica in cluster.ready()])
    (other,) = {"east", "west"} - {name}
    node = cluster.nodes[name]
    old, good = tmp_path / "old", tmp_path / "good"
    for folder, of in ((old, node), (good, cluster.nodes[other])):
        (found,) = of.state.rglob("head")  # beside it the certificate lies
        shutil.copytree(found.parent, folder)
    requests = streams()
    truth.learn(requests)
    begun = open_streams(cluster.head, requests)
    wait_for_frames(begun, chance.randrange(3, 20))
    had = [stream.frames() for stream in begun]
    everyone = node.family()

    shut_out(node)
    said = cluster.verb("node", "revoke", name, "--admin",
                        cluster.admin_address)
    assert name in said and "unknown" not in said, said
    status = cluster.status()
    assert name not in {one["node"] for one in status["nodes"]}, status
    assert status["revoked"] == [name]
    wait_for(lambda: all(stream.frames() > before + 8 or stream.answer.ended
                         for stream, before in zip(begun, had)),
             "a stream does not go on", DEADLINE_S)
    for request, stream in zip(requests, begun):
        truth.check(stream.finish(), *request, note=f"{name} revoked")
    wait_for(lambda: is_elsewhere(cluster, name), "nobody serves instead of it")
    # It is told so, and ends by itself.
    node.gone(everyone)
    assert node.process.returncode == 1, node.process.returncode
    assert "revoked this node's certificate" in node.said()
    assert name in cluster.verb("status", "--admin", cluster.admin_address)

    del cluster.nodes[name]  # it is no node for now
    try:
        check_shut_out(cluster, node.machine, old, good)
        # Neither with its certificate nor with the token that it still has,
        # by whatever name.
        said = refused_to_start(node, without(node.arguments, "--token"))
        assert "revoked" in said and "token" in said, said
        said = refused_to_start(node, node.arguments)
        assert "taken back" in said and "revoked" in said, said
        said = refused_to_start(node, instead(instead(
            node.arguments, "--node-name", "newcomer"),
            "--state-dir", tmp_path / "new"))
        assert "taken back" in said, said

        cluster.head.kill()
        cluster.head.start()
        wait_for(lambda: cluster.node(other)["alive"], "they do not meet again")
        assert cluster.status()["revoked"] == [name]
        wait_for(lambda: is_elsewhere(cluster, name), "nobody serves any more")
        check_shut_out(cluster, node.machine, old, good)
        said = refused_to_start(node, without(node.arguments, "--token"))
        assert "revoked" in said, said
    finally:
        cluster.nodes[name] = node

    # The operator lets it in again.
    token = cluster.verb("token", "create", "--state-dir",
                         cluster.head.state).strip()
    node.arguments = instead(node.arguments, "--token", token)
    node.start()
    wait_for(lambda: cluster.node(name)["alive"], "it may not come back")
    cluster.settle()
    assert name in {replica["node"] for replica in cluster.ready()}
    truth.check(node.ask(*requests[0], request_id=id_of(*requests[0])),
                *requests[0])
    # What it had before is still void, what it has now outlives a start.
    heard, words = outcome(node.machine, old, cluster.head.machine.address,
                           PORTS["cluster"])
    assert heard == b"" and "certificate revoked" in words, words
    assert node.stop() == 0
    all_arguments = node.arguments
    node.arguments = without(all_arguments, "--token")
    node.start()
    node.arguments = all_arguments
    wait_for(lambda: cluster.node(name)["alive"], "it does not come back")


@pytest.mark.parametrize("name, word", [
    ("head", "head"), ("No_Such", "name"), ("a" * 64, "name")])
def test_what_is_no_worker_cannot_be_revoked(cluster, name, word):
    refused = cluster.run_verb("node", "revoke", name, "--admin",
                               cluster.admin_address)
    assert refused.returncode == 1 and word in refused.stderr, refused
    assert name not in cluster.status()["revoked"]


def test_a_node_is_called_what_its_certificate_says(cluster):
    """Else nobody would know what to revoke."""
    node = cluster.nodes["south"]
    assert node.stop() == 0
    try:
        said = refused_to_start(node, instead(
            without(node.arguments, "--token"), "--node-name", "north"))
        assert "certificate is that of south" in said, said
    finally:
        node.start()
    wait_for(lambda: cluster.node("south")["alive"], "it does not come back")
