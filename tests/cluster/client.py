"""A client that keeps every byte of an answer with its time, and that can act in
the middle of one."""

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time

PATIENCE_S = 90  # of one read; an end to waiting, never what is measured


@dataclasses.dataclass
class Answer:
    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    frames: list = dataclasses.field(default_factory=list)  # data of SSE events
    times: list = dataclasses.field(default_factory=list)   # one per frame
    whole: bool = False  # the body came to its end
    begun: float = 0.0
    ended: float = 0.0

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The JSON frames of a stream."""
        return [json.loads(frame) for frame in self.frames
                if frame != b"[DONE]"]

    def longest_gap(self):
        """Between two frames, or before the first."""
        times = [self.begun, *self.times]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)


class Chunks:
    """Bytes of a chunked body in, the body's own bytes out."""

    def __init__(self):
        self.raw = b""
        self.left = 0  # of the chunk, with its end of line
        self.done = False

    def feed(self, data):
        self.raw += data
        out = b""
        while not self.done:
            if self.left > 2:
                part = self.raw[:self.left - 2]
                out += part
                self.raw = self.raw[len(part):]
                self.left -= len(part)
                if self.left > 2:
                    return out
            if self.left:
                if len(self.raw) < self.left:
                    return out
                assert self.raw[:2] == b"\r\n"
                self.raw, self.left = self.raw[2:], 0
            line, found, rest = self.raw.partition(b"\r\n")
            if not found:
                return out
            self.raw, size = rest, int(line, 16)
            self.left = size + 2
            if size == 0:
                self.done = True
        return out


def encode(method, path, body, headers):
    payload = b"" if body is None else (
        body if isinstance(body, bytes) else json.dumps(body).encode())
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json",
                  f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def send(connection, path, body=None, method=None, headers=None):
    connection.sendall(encode(method or ("GET" if body is None else "POST"),
                              path, body, headers or {}))


def read(connection, at_frame=None, answer=None):
    """The answer on `connection`. After the n-th frame of a stream (counted from
    1) `at_frame(n, answer)` is called. A connection that breaks is no error: the
    answer is not whole then."""
    answer = answer or Answer()
    answer.begun = time.monotonic()
    connection.settimeout(PATIENCE_S)
    seen = b""
    try:
        while b"\r\n\r\n" not in seen:
            if not (piece := connection.recv(65536)):
                answer.ended = time.monotonic()
                return answer
            seen += piece
        head, _, rest = seen.partition(b"\r\n\r\n")
        read_head(answer, head.decode())
        read_body(answer, connection, rest, at_frame)
    except ConnectionError:
        pass
    answer.ended = time.monotonic()
    return answer


def read_head(answer, text):
    first, *lines = text.split("\r\n")
    answer.status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)[1])
    for line in lines:
        name, _, value = line.partition(": ")
        answer.headers[name.lower()] = value


def read_body(answer, connection, piece, at_frame):
    chunks = Chunks() if answer.headers.get("transfer-encoding") else None
    length = int(answer.headers.get("content-length", -1))
    events = answer.headers.get("content-type", "").startswith(
        "text/event-stream")
    taken = 0  # of the body, in frames
    while True:
        answer.body += chunks.feed(piece) if chunks else piece
        while events and (end := answer.body.find(b"\n\n", taken)) >= 0:
            frame = answer.body[taken:end]
            taken = end + 2
            assert frame.startswith(b"data: "), frame
            answer.frames.append(frame[len(b"data: "):])
            answer.times.append(time.monotonic())
            if at_frame:
                at_frame(len(answer.frames), answer)
        if chunks.done if chunks else len(answer.body) == length:
            answer.whole = True
            return
        if not (piece := connection.recv(65536)):
            answer.whole = not chunks and length < 0
            return


def ask(connection, path, body=None, at_frame=None, answer=None, **more):
    """Sends a request on a connection that is then closed."""
    with connection:
        try:
            send(connection, path, body, **more)
        except ConnectionError:
            pass  # what came before the break is still to be read
        return read(connection, at_frame, answer)


class Stream(threading.Thread):
    """An answer that is read meanwhile; its frames can be looked at."""

    def __init__(self, connection, path, body, **more):
        super().__init__(daemon=True)
        self.connection = connection
        self.answer = Answer()
        self.arguments = (path, body)
        self.more = more
        self.error = None
        self.start()

    def run(self):
        try:
            ask(self.connection, *self.arguments, answer=self.answer,
                **self.more)
        except Exception as error:  # to be raised where it is waited for
            self.error = error

    def frames(self):
        return len(self.answer.frames)

    def leave(self):
        """Goes away before the answer's end, and says whether it could."""
        if self.answer.ended:
            return False
        with contextlib.suppress(OSError):  # it has just ended
            self.connection.shutdown(socket.SHUT_RDWR)
        self.join(2 * PATIENCE_S)
        return not self.answer.whole

    def finish(self):
        self.join(2 * PATIENCE_S)
        if self.error:
            raise self.error
        assert not self.is_alive(), "a stream does not end"
        return self.answer


def reset(connection):
    """Closes it as a crashed client's machine does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                          b"\1\0\0\0\0\0\0\0")
    connection.close()
