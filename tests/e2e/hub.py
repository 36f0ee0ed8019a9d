"""A hub on loopback: what Hugging Face answers, as far as a client of models
asks, with a storage on another port that large files are redirected to. It can
be told to be slow, to fail and to lie, and it writes down who asked for what.
"""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

from cluster import BINARY, DEADLINE_S

TOKEN = "hf_canary-token-4711"
SIGNATURE = "canary-signature-4711"  # in the query of the storage's URLs
COMMIT = "c0ffee" + 34 * "0"
LARGE_BYTES = 1 << 20  # from here on a file is kept in the storage


@functools.lru_cache(maxsize=64)
def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@functools.lru_cache(maxsize=64)
def sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclasses.dataclass
class File:
    content: bytes

    def __post_init__(self):
        self.is_large = len(self.content) >= LARGE_BYTES
        self.hash = (sha256 if self.is_large else git_blob)(self.content)

    def entry(self, name, tells_hashes):
        entry = {"rfilename": name}
        if tells_hashes:
            entry |= {"size": len(self.content),
                      "blobId": git_blob(self.content)}
            if self.is_large:
                entry["lfs"] = {"sha256": self.hash, "oid": self.hash,
                                "size": len(self.content), "pointerSize": 130}
        return entry


@dataclasses.dataclass
class Request:
    server: str  # "hub" or "storage"
    method: str
    path: str
    headers: dict
    status: int = 0
    sent: int = 0  # bytes of the body


class Hub:
    """`repositories`: id -> {name: content}. What is wrong is set by its users:

    faults     name -> list; each GET of that file takes the first and does it
    every      name -> one that every GET does
    """

    def __init__(self, repositories, certificate=None):
        self.certificate = certificate  # a file with its key: speak TLS
        self.repositories = {
            repository: {name: File(content) for name, content in files.items()}
            for repository, files in repositories.items()}
        self.commit = COMMIT
        self.asks_token = set()   # repositories that are private
        self.gated = set()        # that this token may not read
        self.tells_hashes = True  # in the list of files
        self.api_status = 0       # instead of the list of files
        self.bytes_per_s = 0      # of each connection; 0 = at once
        self.faults = {}
        self.every = {}
        self.extra_names = []     # in the list of files
        self.requests = []
        self.lock = threading.Lock()
        self.servers = [self._serve(kind) for kind in ("hub", "storage")]
        self.url, self.storage = (
            f"{'https' if certificate else 'http'}://127.0.0.1:"
            f"{server.server_port}" for server in self.servers)

    def _serve(self, kind):
        handler = type("handler", (Handler,), {"hub": self, "kind": kind})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False)
            server.handle_error = lambda *_: None  # strangers hang up
        threading.Thread(target=server.serve_forever, args=[0.02],
                         daemon=True).start()
        return server

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fault_of(self, name):
        with self.lock:
            waiting = self.faults.get(name)
            return waiting.pop(0) if waiting else self.every.get(name, "")

    def sent(self, name):
        """Bytes of the file that were sent."""
        return sum(one.sent for one in self.requests
                   if one.path.split("?")[0].endswith("/" + name))

    def gets(self, name=None):
        return [one for one in self.requests if one.method == "GET" and
                (name is None or one.path.split("?")[0].endswith("/" + name))]

    def forget(self):
        self.requests.clear()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None
    kind = ""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.noted = Request(self.kind, self.command, self.path,
                             dict(self.headers))
        with self.hub.lock:
            self.hub.requests.append(self.noted)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.kind == "storage":
                self.answer_storage()
            else:
                self.answer_hub()

    # -- the hub

    def answer_hub(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        if found := re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path):
            return self.answer_list(*found.groups())
        if found := re.fullmatch(r"/api/models/(.+?)/tree/[^/]+", path):
            return self.answer_tree(found[1])
        found = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)
        if not found:
            return self.answer_error(404)
        repository, revision, name = found.groups()
        file = self.hub.repositories.get(repository, {}).get(name)
        if self.refuses(repository):
            return None
        if file is None or revision not in ("main", self.hub.commit):
            return self.answer_error(404, "EntryNotFound")
        return self.answer_file(repository, name, file)

    def refuses(self, repository):
        token = self.headers.get("Authorization")
        if repository in self.hub.gated:
            self.answer_error(403 if token else 401, "GatedRepo")
        elif repository not in self.hub.repositories or (
                repository in self.hub.asks_token
                and token != f"Bearer {TOKEN}"):
            self.answer_error(404 if token else 401, "RepoNotFound")
        else:
            return False
        return True

    def answer_list(self, repository, revision):
        if self.hub.api_status:
            return self.answer_error(self.hub.api_status)
        if self.refuses(repository):
            return None
        if revision not in ("main", self.hub.commit):
            return self.answer_error(404, "RevisionNotFound")
        files = self.hub.repositories[repository]
        entries = [file.entry(name, self.hub.tells_hashes)
                   for name, file in files.items()]
        entries += [{"rfilename": name, "size": 1, "blobId": 40 * "a"}
                    for name in self.hub.extra_names]
        return self.answer_bytes(200, json.dumps(
            {"id": repository, "sha": self.hub.commit,
             "siblings": entries}).encode())

    def answer_tree(self, repository):
        """What the hub's own client asks besides."""
        if not self.refuses(repository):
            self.answer_bytes(200, json.dumps([
                {"type": "file", "path": name, "size": len(file.content),
                 "oid": git_blob(file.content)} |
                file.entry(name, True) for name, file
                in self.hub.repositories[repository].items()]).encode())

    def answer_file(self, repository, name, file):
        headers = {"X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if not file.is_large:
            headers["ETag"] = f'"{file.hash}"'
            return self.answer_content(name, file, headers)
        headers |= {"X-Linked-Etag": f'"{file.hash}"',
                    "X-Linked-Size": str(len(file.content)),
                    "Location": f"{self.hub.storage}/{repository}/{name}"
                                f"?X-Signature={SIGNATURE}"}
        return self.answer_bytes(302, b"", headers)

    # -- the storage

    def answer_storage(self):
        path, _, query = self.path.partition("?")
        if query != f"X-Signature={SIGNATURE}":
            return self.answer_error(403)
        owner, repository, name = urllib.parse.unquote(path[1:]).split("/", 2)
        file = self.hub.repositories[f"{owner}/{repository}"][name]
        return self.answer_content(name, file, {"ETag": f'"{file.hash}"'})

    # -- bytes

    def answer_error(self, status, code=""):
        self.answer_bytes(status, b'{"error":"no"}',
                          {"X-Error-Code": code} if code else {})

    def answer_bytes(self, status, body, headers=None):
        self.noted.status = status
        self.send_response(status)
        for key, value in {**(headers or {}),
                           "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.noted.sent = len(body)

    def answer_content(self, name, file, headers):
        """A file or a range of it, as the fault of the day has it."""
        content, status = file.content, 200
        if self.command == "HEAD":
            headers["Content-Length"] = str(len(content))
            self.noted.status = status
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            return self.end_headers()
        begin, end = 0, len(content)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)",
                                 self.headers.get("Range", "")):
            begin = int(asked[1])
            end = min(end, int(asked[2] or end) + 1)
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        fault, _, amount = self.hub.fault_of(name).partition(":")
        if fault == "status":
            return self.answer_error(int(amount))
        if fault == "later":
            return self.answer_bytes(429, b"", {"Retry-After": amount})
        if fault == "loop":
            return self.answer_bytes(302, b"", {"Location": self.path})
        if fault == "to":
            return self.answer_bytes(302, b"", {"Location": amount})
        if fault == "page":
            return self.answer_bytes(200, b"<html>log in first</html>")
        body = content[begin:end]
        if fault == "lie":
            body = bytes(len(body))
        if fault == "change":
            headers["ETag"] = '"another"'
        self.noted.status = status
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        return self.send(body, fault, int(amount or 0) if fault == "cut" or
                         fault == "stall" else 0)

    def send(self, body, fault, amount):
        piece = 64 * 1024
        if fault in ("cut", "stall"):
            body = body[:amount]
        if fault == "trickle":
            return self.trickle(body)
        for at in range(0, len(body), piece):
            part = body[at:at + piece]
            self.wfile.write(part)
            self.noted.sent += len(part)
            if self.hub.bytes_per_s:
                time.sleep(len(part) / self.hub.bytes_per_s)
        if fault == "stall":
            time.sleep(DEADLINE_S)
        if fault in ("cut", "stall"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def trickle(self, body):
        """Never without a byte for long, and never done."""
        for at in range(len(body)):
            self.wfile.write(body[at:at + 1])
            self.noted.sent += 1
            time.sleep(0.02)


def content_of(size, seed=1):
    """Bytes that look like nothing else."""
    return hashlib.shake_256(b"%d" % seed).digest(size)


def pull_environment(folder, hub=None, **more):
    """Nothing of the machine's own tokens and caches."""
    out = {name: value for name, value in os.environ.items()
           if not name.startswith(("HF_", "HUGGING", "AWS_", "GS_", "XDG_"))}
    out |= {"HOME": str(folder), "HF_HOME": str(folder / "hf"),
            "TROUPE_CACHE": str(folder / "own"), "NO_PROXY": "127.0.0.1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TROUPE_DOWNLOAD_STALL_S": "20"}
    if hub is not None:
        out["HF_ENDPOINT"] = hub.url
    return {**out, **more}


def pull(environment, *arguments, limit_s=DEADLINE_S):
    return subprocess.run([BINARY, "pull", *arguments], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=limit_s, env=environment)
