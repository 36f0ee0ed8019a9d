"""What listens, and what strangers get there."""

import os
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import client
from load import completion, id_of
from nodes import PORTS, resident_kb

SECONDS = 2  # to be closed, or to hear nothing


def listening(node):
    """{(pid, port): address} of all its processes."""
    sockets = node.machine.listening()
    return {(one.pid, sockets[inode][1]): sockets[inode][0]
            for one in node.family() for inode in one.listening_inodes()
            if inode in sockets}


def inner_ports(node):
    """Those between processes: (pid, address, port)."""
    return [(pid, address, port)
            for (pid, port), address in listening(node).items()
            if port not in (PORTS["http"], PORTS["admin"], PORTS["join"])]


def test_only_published_ports_listen(cluster):
    for node in cluster.nodes.values():
        found = listening(node)
        own = {port: address for (pid, port), address in found.items()
               if pid == node.process.pid}
        about = node.about()
        expected = {about["http_port"], about["admin_port"]}
        if node is cluster.head:
            expected |= {about["join_port"], about["cluster_port"]}
        assert expected <= set(own), (node.name, own)
        assert len(set(own) - expected) <= 2, (node.name, own)
        assert own[PORTS["admin"]] == "127.0.0.1"
        for (pid, port), address in found.items():
            assert address in ("127.0.0.1", node.machine.address), (
                node.name, pid, port, address)
            if pid != node.process.pid:
                mine = [p for q, p in found if q == pid]
                assert len(mine) <= 2, (node.name, mine)
        # No socket of a node's machine is anybody else's.
        assert len(found) == len(node.machine.listening())


def tls(folder=None):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if folder:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory):
    """A certificate that some other cluster might have."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=east", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem"], check=True, capture_output=True)
    return folder


def basp(operation):
    """A header of CAF's protocol that announces 4 GiB."""
    return bytes([operation, 0, 0, 0]) + b"\xff" * 4 + bytes(32)


def said(node, address, port, payload, context=None):
    """What a stranger hears who sends this."""
    heard = b""
    try:
        with node.machine.connect(port, address, SECONDS) as plain:
            link = context.wrap_socket(plain) if context else plain
            with link:
                link.sendall(payload)
                while piece := link.recv(4096):
                    heard += piece
    except (ssl.SSLError, ConnectionError, TimeoutError, OSError):
        pass
    return heard


def check_strangers(node, pid, address, port, attempts):
    """Each attempt, (payload, TLS context or None), hears nothing, and together
    they cost no memory."""
    def check(attempt):
        heard = said(node, address, port, *attempt)
        if attempt[1]:
            assert heard == b"", (node.name, port, heard)
        else:  # a TLS alert at most; 21 is its record type
            assert len(heard) < 64 and heard[:1] in (b"", b"\x15"), (
                node.name, port, heard)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, attempts[:2]))
        before = resident_kb(pid)  # a first connection has its price
        list(pool.map(check, attempts))
    assert resident_kb(pid) - before < 1024, (node.name, port)


def test_strangers_get_nothing_from_inner_ports(cluster, truth, chance,
                                                other_authority):
    plain = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", chance.randbytes(4096),
             *(basp(operation) for operation in range(7))]
    attempts = [(payload, context) for payload in plain[1:3]
                for context in (tls(), tls(other_authority))]
    attempts += [(payload, None) for payload in plain]
    for node in cluster.nodes.values():
        for pid, address, port in inner_ports(node):
            check_strangers(node, pid, address, port, attempts)
    request = completion("Knock, knock.", max_tokens=10, seed=111)
    truth.check(cluster.nodes["east"].ask(*request, request_id=id_of(*request)),
                *request)


def test_idle_strangers_keep_nobody_out(cluster, truth):
    """300 connections that say nothing, to each inner port of a worker."""
    node = cluster.nodes["west"]
    idle = []
    try:
        for _, address, port in inner_ports(node):
            for _ in range(300):
                try:
                    idle.append(node.machine.connect(port, address, SECONDS))
                except OSError:
                    break  # it takes no more of them
        request = completion("Silence", max_tokens=10, seed=112)
        for name in ("head", "east", "west"):
            truth.check(cluster.nodes[name].ask(
                *request, request_id=id_of(*request)), *request)
    finally:
        for connection in idle:
            connection.close()


def test_the_join_port_gives_only_to_those_with_a_token(cluster, chance):
    head = cluster.head
    address, port = head.machine.address, PORTS["join"]
    before = resident_kb(head.process.pid)
    for payload in (chance.randbytes(4096), basp(1), b"GET / HTTP/1.1\r\n\r\n"):
        heard = said(head, address, port, payload)
        assert len(heard) < 64 and heard[:1] in (b"", b"\x15"), heard
    requests = [b"{}", b"[" * 5000, b'{"token": 7}', chance.randbytes(200),
                b'{"token": "%s", "node": "x", "version": 2, "request": ""}'
                % cluster.token[:-2].encode()]
    for body in requests:
        heard = said(head, address, port, client.encode(
            "POST", "/join", body, {}), tls())
        assert b"CERTIFICATE" not in heard
        assert not heard or b" 4" in heard.split(b"\r\n")[0], heard[:200]
    for method, path in (("GET", "/"), ("GET", "/join"), ("PUT", "/join")):
        heard = said(head, address, port,
                     client.encode(method, path, None, {}), tls())
        assert not heard or b" 4" in heard.split(b"\r\n")[0], heard[:200]
    assert resident_kb(head.process.pid) - before < 1024


def test_secrets_are_on_no_command_line(cluster):
    """But the token, which its user types; it ends with the joining."""
    for node in cluster.nodes.values():
        for one in node.family():
            if one.pid == node.process.pid:
                continue
            line = open(f"/proc/{one.pid}/cmdline").read()
            assert cluster.token not in line and "KEY" not in line
            environment = open(f"/proc/{one.pid}/environ").read()
            assert cluster.token not in environment
        for path in node.state.rglob("*"):
            if path.is_file():
                assert path.stat().st_mode & 0o077 == 0, path
    assert os.stat(cluster.head.state).st_mode & 0o077 == 0
