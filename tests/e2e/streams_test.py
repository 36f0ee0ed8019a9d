"""Frames, disconnects and many streams at once."""

import contextlib
import json
import re
import socket
import threading

import pytest

from cluster import DEADLINE_S, chunks, sse, wait_for

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 1900, "ignore_eos": True}


def body(path, **more):
    text = "Once upon a time"
    start = ({"messages": [{"role": "user", "content": text}]}
             if path == CHAT else {"prompt": text})
    return {**start, "temperature": 0, "max_tokens": 6, "stream": True, **more}


def stream(cluster, path=CHAT, **more):
    answer = cluster.http.post(path, json=body(path, **more))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["transfer-encoding"] == "chunked"
    return chunks(answer.text)


@contextlib.contextmanager
def raw_stream(cluster, **more):
    """An open stream as a socket; closing it is what a client does that leaves."""
    payload = json.dumps(body("/v1/completions", **more)).encode()
    with socket.create_connection(("127.0.0.1", cluster.port),
                                  DEADLINE_S) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                       b"Content-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(payload) + payload)
        yield client


def read_until(client, text):
    seen = b""
    while text not in seen:
        piece = client.recv(65536)
        assert piece, seen
        seen += piece
    return seen


def test_a_chat_stream_has_its_frames_in_order(cluster):
    frames = stream(cluster, stream_options={"include_usage": True})
    first, *middle, last, usage = frames
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["choices"][0]["finish_reason"] is None
    assert middle
    for frame in middle:
        (choice,) = frame["choices"]
        assert set(choice["delta"]) == {"content"}
        assert choice["finish_reason"] is None
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["delta"]["content"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 6
    assert all(frame["object"] == "chat.completion.chunk" for frame in frames)
    assert len({frame["id"] for frame in frames}) == 1


def test_without_include_usage_there_is_no_usage_frame(cluster):
    assert all(frame["choices"] for frame in stream(cluster))


def test_usage_in_every_frame_when_asked_for(cluster):
    frames = stream(cluster, stream_options={"include_usage": True,
                                             "continuous_usage_stats": True})
    counts = [frame["usage"]["completion_tokens"] for frame in frames]
    assert counts == sorted(counts) and counts[-1] == 6 and counts[0] == 0


def test_a_completion_stream_has_no_role_frame(cluster):
    frames = stream(cluster, "/v1/completions")
    assert all(frame["choices"][0]["text"] for frame in frames)
    assert all(frame["object"] == "text_completion" for frame in frames)
    assert frames[-1]["choices"][0]["finish_reason"] == "length"


def test_each_choice_begins_with_its_role(cluster):
    frames = stream(cluster, n=2, temperature=1, seed=4)
    for index in (0, 1):
        mine = [frame["choices"][0] for frame in frames
                if frame["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert [one["finish_reason"] for one in mine].count("length") == 1
        assert mine[-1]["finish_reason"] == "length"


def test_a_stop_string_ends_a_stream_and_is_never_shown(cluster):
    whole = cluster.complete(max_tokens=24, ignore_eos=True
                             ).json()["choices"][0]["text"]
    stop = whole[7:11]
    frames = stream(cluster, "/v1/completions", max_tokens=24, stop=stop,
                    ignore_eos=True)
    last = frames[-1]["choices"][0]
    assert "".join(frame["choices"][0]["text"] for frame in frames
                   ) == whole[:whole.index(stop)]
    assert last["finish_reason"] == "stop" and last["stop_reason"] == stop


def test_characters_of_several_tokens_come_whole(cluster):
    # Any of these bytes alone would be shown as U+FFFD.
    frames = stream(cluster, max_tokens=40, messages=[
        {"role": "user", "content": "Repeat: 🦊🦊🦊🦊 日本語日本語"}])
    whole = cluster.chat("Repeat: 🦊🦊🦊🦊 日本語日本語", max_tokens=40).json()
    text = "".join(frame["choices"][0]["delta"]["content"] for frame in frames)
    assert text == whole["choices"][0]["message"]["content"]


def test_an_error_before_the_first_token_is_a_plain_answer(cluster):
    answer = cluster.http.post(CHAT, json=body(CHAT, temperature=-1))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["param"] == "temperature"


def test_request_ids_are_taken_or_made(cluster):
    answer = cluster.http.post(CHAT, json={**body(CHAT), "stream": False},
                               headers={"X-Request-Id": "my-id-1"})
    assert answer.headers["x-request-id"] == "my-id-1"
    assert answer.json()["id"] == "chatcmpl-my-id-1"
    made = {cluster.chat(max_tokens=1).headers["x-request-id"]
            for _ in range(2)}
    assert len(made) == 2


def test_a_stream_arrives_while_it_is_made(cluster):
    """The first frames are there before the last token is drawn."""
    with raw_stream(cluster, **LONG) as client:
        read_until(client, b"data: ")
        wait_for(lambda: cluster.load()["running"] == 1, "it is not running")


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_is_cancelled(cluster, streams):
    wait_for(cluster.is_idle, "not idle before")
    before = cluster.load()
    with raw_stream(cluster, **LONG, stream=streams) as client:
        if streams:
            read_until(client, b"data: ")
        wait_for(lambda: cluster.load()["kv_blocks_free"]
                 < before["kv_blocks_free"], "no KV block in use")
    wait_for(cluster.is_idle, "a request without a client goes on")
    after = cluster.load()
    assert after["kv_blocks_free"] == before["kv_blocks_free"]
    assert after["steps"] - before["steps"] < 1900 / 2
    reasons = cluster.admin.get("/metrics").text
    assert 'finished_reason="abort"' in reasons


def test_a_long_prompt_does_not_stop_a_stream(cluster):
    """While 1,900 tokens of another prompt are read, tokens keep coming."""
    with raw_stream(cluster, **LONG) as client:
        read_until(client, b"data: ")
        start = cluster.load()
        done = threading.Event()
        answers = []

        def ask():
            prompt = [(i * 37) % 40000 + 100 for i in range(1900)]
            answers.append(cluster.complete(prompt, max_tokens=1))
            done.set()

        asker = threading.Thread(target=ask)
        asker.start()
        seen = b""
        while not done.is_set():
            seen += client.recv(65536)
        asker.join()
        assert answers[0].status_code == 200
        # Loads are reported now and then.
        wait_for(lambda: cluster.load()["prompt_tokens"]
                 >= start["prompt_tokens"] + 1900, "no report")
        # The prompt took several steps, and the stream had a token in each.
        assert seen.count(b"data: ") >= 1900 // 512


def test_threads_are_as_many_at_1_as_at_1000_streams(cluster):
    def threads():
        return sorted(p.threads() for p in cluster.family())

    def in_flight():
        return cluster.metrics()["troupe_requests_in_flight"]

    with raw_stream(cluster, **LONG) as client:
        read_until(client, b"data: ")
        at_one = threads()
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            # 1,900,000 tokens: no machine that is slow shall refuse them for
            # not being done in the usual 600 s.
            stack.enter_context(raw_stream(cluster, **LONG, timeout=86400,
                                           prompt=[100 + number]))
        wait_for(lambda: in_flight() >= 1000, "1,000 are not open")
        at_thousand = threads()
        # The cluster still answers everybody else.
        assert cluster.http.get("/v1/models").status_code == 200
    assert at_thousand == at_one
    wait_for(lambda: in_flight() == 0, "left clients are still served")
    wait_for(cluster.is_idle, "the engine still works for them")


def test_pipelined_requests_are_answered_in_order(cluster):
    with socket.create_connection(("127.0.0.1", cluster.port),
                                  DEADLINE_S) as client:
        client.sendall(b"".join(
            b"GET /v1/models/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % i
            for i in range(20)))
        seen = b""
        while seen.count(b"HTTP/1.1 404") < 20:
            piece = client.recv(65536)
            assert piece, seen
            seen += piece
    places = [seen.index(b'\\"%d\\"' % i) for i in range(20)]
    assert places == sorted(places)


@pytest.mark.parametrize("request_text, status", [
    (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n"
     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**20, 431),
    (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
])
def test_broken_framing_closes_the_connection(cluster, request_text, status):
    with socket.create_connection(("127.0.0.1", cluster.port),
                                  DEADLINE_S) as client:
        seen = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(request_text)
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                seen += piece
    assert seen.startswith(b"HTTP/1.1 %d " % status), seen[:200]
    assert len(re.findall(rb"^HTTP/1.1 \d", seen, re.MULTILINE)) == 1


def test_frames_hold_valid_json_only(cluster):
    answer = cluster.http.post(CHAT, json=body(CHAT, max_tokens=30))
    for data in list(sse(answer.text))[:-1]:
        json.loads(data)
