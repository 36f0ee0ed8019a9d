"""Machines on one wire: network namespaces on a bridge, and what can happen to
the wire. Only inside tests/cluster/enclosed, where nothing is left behind."""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import socket
import subprocess

BRIDGE = "wire"
SUBNET = "10.77.0"
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def tool(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def lay_wire():
    """The bridge; the caller's own end of it is host 254."""
    tool("ip", "link", "add", BRIDGE, "type", "bridge")
    tool("ip", "address", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
    tool("ip", "link", "set", BRIDGE, "up")


@contextlib.contextmanager
def namespace(path):
    """The calling thread is in that network namespace."""
    with open("/proc/thread-self/ns/net") as home, open(path) as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def enter(file):
    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {file.name}")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A network namespace with one link, eth0, to the wire."""
    name: str
    number: int

    @property
    def address(self):
        return f"{SUBNET}.{self.number}"

    @property
    def path(self):
        return pathlib.Path("/run/netns") / self.name

    def build(self):
        outer = f"veth{self.number}"
        tool("ip", "netns", "add", self.name)
        tool("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0",
             "netns", self.name)
        tool("ip", "link", "set", outer, "master", BRIDGE, "up")
        for words in (["address", "add", f"{self.address}/24", "dev", "eth0"],
                      ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            tool("ip", "-n", self.name, *words)
        return self

    def inside(self, *words):
        """The command line that runs `words` there, in the same process."""
        return ["nsenter", f"--net={self.path}", "--", *map(str, words)]

    # The wire

    def mend(self):
        """As at first, whatever was done to it."""
        self.heal()
        self.link("up")

    def cut(self, *directions):
        """Drops what comes in, what goes out, or both. The machine itself sees
        its link up, and its own loopback works."""
        for way in directions or ("in", "out"):
            tool(*self.inside("iptables", "-w", "-A", *rule(way)))

    def heal(self):
        tool(*self.inside("iptables", "-w", "-F"))

    def link(self, state):
        tool("ip", "-n", self.name, "link", "set", "eth0", state)

    # A client on this machine

    def connect(self, port, address=None, seconds=60):
        """A connection made by somebody on this machine."""
        with namespace(self.path):
            return socket.create_connection((address or self.address, port),
                                            seconds)

    def listening(self):
        """{inode: (address, port)} of the listening TCP sockets."""
        found = {}
        with namespace(self.path):
            for family, name in ((socket.AF_INET, "tcp"),
                                 (socket.AF_INET6, "tcp6")):
                text = pathlib.Path(f"/proc/thread-self/net/{name}").read_text()
                for line in text.splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A":
                        address, port = fields[1].split(":")
                        found[int(fields[9])] = (plain(family, address),
                                                 int(port, 16))
        return found


def rule(way):
    return {"in": ["INPUT", "-i", "eth0", "-j", "DROP"],
            "out": ["OUTPUT", "-o", "eth0", "-j", "DROP"]}[way]


def plain(family, text):
    """An address as /proc writes it: words in the machine's byte order."""
    words = [bytes.fromhex(text[i:i + 8])[::-1] for i in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(words))


def is_enclosed():
    return os.environ.get("TROUPE_ENCLOSED") == "1"
