"""What runs, what listens, and what is left when something dies."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import ssl
import threading

import httpx
import pytest

from cluster import (DEADLINE_S, WEIGHTS, chunks, model_config, run_verb,
                     serve_config, sse, wait_for)

LONG = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 1500,
        "ignore_eos": True, "stream": True}
ONE_AT_A_TIME = serve_config(model_config(engine_kwargs={
    "max_model_len": 2048, "max_num_seqs": 1}))


def open_stream(cluster, **more):
    """A stream that has begun, and its first piece. It may be cut: that the
    last chunk of the body is missing is how a broken stream ends."""
    def pieces():
        with httpx.Client(timeout=DEADLINE_S, trust_env=False) as client:
            with client.stream("POST", f"{cluster.url}/v1/completions",
                               json={**LONG, **more}) as answer:
                assert answer.status_code == 200
                with contextlib.suppress(httpx.RemoteProtocolError):
                    yield from answer.iter_text()
    stream = pieces()
    return stream, next(stream)


def open_whole(cluster, **more):
    """All pieces of a stream."""
    stream, first = open_stream(cluster, **more)
    yield first
    yield from stream


def text_of(stream):
    """What a stream that ended as it should has said."""
    return "".join(chunk["choices"][0]["text"] for chunk in chunks(stream))


def listening(cluster):
    """(process, address, port) of every listening TCP socket of the family."""
    by_inode = {}
    for name in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        for line in lines:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                by_inode[int(fields[9])] = address, int(port, 16)
    return [(process.pid, *by_inode[inode])
            for process in cluster.family()
            for inode in process.listening_inodes() if inode in by_inode]


def test_only_published_ports_listen_and_only_on_loopback(cluster):
    cluster.chat()  # connections are made by now
    found = listening(cluster)
    assert {address for _, address, _ in found} == {"0100007F"}
    assert len(cluster.family()) == 2  # the head and one replica
    ports = {port for _, _, port in found}
    assert {cluster.port, cluster.admin_port} <= ports
    # What is left is cluster traffic: an actor port and a blob port for a
    # process. Strangers are not served there.
    inside = ports - {cluster.port, cluster.admin_port}
    assert 1 <= len(inside) <= 4
    stream, text = open_stream(cluster, max_tokens=200)
    for port in inside:
        refuses_strangers(port)
    # Nor do they disturb those who belong there.
    assert chunks(text + "".join(stream))[-1]["choices"][0][
        "finish_reason"] == "length"


def refuses_strangers(port):
    socket.create_connection(("127.0.0.1", port), DEADLINE_S).close()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # TLS without a certificate of this cluster: refused, at once or (TLS 1.3)
    # at the first word.
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as plain:
        try:
            with context.wrap_socket(plain) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                said = client.recv(100)
        except (ssl.SSLError, ConnectionError):
            said = b""
    assert said == b"", port
    # No TLS at all.
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        try:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            said = client.recv(100)
        except ConnectionError:
            said = b""
    assert not said.startswith(b"HTTP/"), port


def test_the_state_directory_is_private(cluster):
    state = cluster.config.parent / "state"
    assert state.stat().st_mode & 0o077 == 0
    files = [path for path in state.rglob("*") if path.is_file()]
    assert any(path.suffix in (".pem", ".key", ".crt") for path in files)
    for path in files:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM,
                                    signal.SIGHUP])
def test_a_signal_drains_and_leaves_nothing(start, number):
    cluster = start(serve_config(model_config()))
    assert len(cluster.family()) == 2
    stream, begun = open_stream(cluster, max_tokens=60)
    whole = []
    reader = threading.Thread(
        target=lambda: whole.append(begun + "".join(stream)))
    reader.start()
    assert cluster.stop(number) == 0
    reader.join(DEADLINE_S)
    # What was under way came to its end.
    frames = chunks(whole[0])
    assert frames[-1]["choices"][0]["finish_reason"] == "length"


def test_stop_in_another_terminal_ends_a_run(start, tmp_path):
    cluster = start(serve_config(model_config()), state=tmp_path / "state")
    facts = tmp_path / "state" / "node.json"
    wait_for(lambda: facts.exists() and json.loads(facts.read_text())[
        "http_port"] == cluster.port, "it does not say where it listens")
    everyone = cluster.family()
    said = run_verb("stop", "--state-dir", tmp_path / "state")
    assert said.returncode == 0, said.stderr
    assert cluster.process.wait(DEADLINE_S) == 0
    assert not any(one.lives() for one in everyone)
    assert not facts.exists()


def test_nothing_outlives_a_killed_parent(start):
    cluster = start(serve_config(model_config()))
    stream, _ = open_stream(cluster)
    assert cluster.stop(signal.SIGKILL) == -signal.SIGKILL
    assert "[DONE]" not in "".join(stream)


def test_a_second_signal_ends_at_once(start):
    cluster = start(serve_config(model_config()))
    stream, _ = open_stream(cluster, max_tokens=1900)
    cluster.process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping" in cluster.said(), "it does not stop")
    assert cluster.stop(signal.SIGINT) == 130


def test_a_killed_replica_comes_back(start):
    cluster = start(ONE_AT_A_TIME)
    (before,) = cluster.replicas()
    expected = cluster.complete("The sky is", max_tokens=4).json()
    undisturbed = text_of("".join(open_whole(cluster, max_tokens=400)))
    stream, text = open_stream(cluster, max_tokens=400)

    # One request is in the engine; this one waits behind it.
    waiting = []
    asker = threading.Thread(target=lambda: waiting.append(
        cluster.complete("The sky is", max_tokens=4)))
    asker.start()
    wait_for(lambda: cluster.metrics()["troupe_requests_in_flight"] == 2,
             "the second request did not arrive")

    os.kill(before["pid"], signal.SIGKILL)
    # The stream goes on with the tokens of an undisturbed one.
    assert text_of(text + "".join(stream)) == undisturbed

    asker.join(DEADLINE_S)
    assert waiting[0].status_code == 200, waiting[0].text
    assert (waiting[0].json()["choices"][0]["text"]
            == expected["choices"][0]["text"])
    (after,) = wait_for(cluster.replicas, "no replica came back")
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert cluster.complete("The sky is", max_tokens=4).json()[
        "choices"] == expected["choices"]


def test_two_replicas_answer_alike_and_one_suffices(start):
    cluster = start(serve_config(model_config(
        deployment_config={"num_replicas": 2})))
    wait_for(lambda: len(cluster.replicas()) == 2, "two replicas")
    first, second = cluster.replicas()
    assert first["arithmetic_class"] == second["arithmetic_class"]
    expected = cluster.complete().json()["choices"]
    answers = [cluster.complete().json() for _ in range(6)]
    assert all(answer["choices"] == expected for answer in answers)

    os.kill(first["pid"], signal.SIGKILL)
    for _ in range(6):
        answer = cluster.complete()
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"] == expected


def test_what_wants_a_gpu_waits_and_the_others_serve(start):
    gpu = {"model_loading_config": {"model_id": "big",
                                    "model_source": str(WEIGHTS)},
           "accelerator_type": "A10G"}
    cluster = start(serve_config(gpu, model_config("org/small")))
    answer = cluster.chat(model="org/small")
    assert answer.status_code == 200, answer.text
    model = cluster.model("big")
    assert model["status"] == "PENDING"
    assert "GPU" in model["reason"]
    assert cluster.model("org/small")["status"] == "RUNNING"

    said = run_verb("status", "--admin-port", cluster.admin_port)
    assert said.returncode == 0
    assert "PENDING" in said.stdout and model["reason"] in said.stdout

    refusal = cluster.chat(model="big")
    assert refusal.status_code in (404, 503)
    assert refusal.json()["error"]["message"]
    # Ids may hold slashes; without "model" there must be one only.
    assert cluster.http.get("/v1/models/org/small").json()["id"] == "org/small"
    assert cluster.chat().status_code == 400


def test_keys_are_needed_where_there_are_keys(start):
    cluster = start(serve_config(model_config(),
                                 troupe={"api_keys": ["sk-number-one", "sk-number-two"]}))
    assert cluster.http.get("/-/healthz").status_code == 200

    def models(key):
        headers = {"Authorization": key} if key else {}
        return cluster.http.get("/v1/models", headers=headers).status_code
    assert models("Bearer sk-number-one") == models("bearer sk-number-two") == 200
    for wrong in (None, "Bearer sk-number-three", "Bearer", "sk-number-one",
                  "Bearer sk-number-one,sk-number-two", "Bearer " + "k" * 5000):
        assert models(wrong) == 401, wrong
    for path in ("//v1/models", "/V1/models", "/%761/models", "/metrics",
                 "/v1/../metrics", "/v1/chat/completions"):
        assert cluster.http.get(path).status_code in (400, 401, 404), path
    assert "sk-number-one" not in cluster.said()


def test_a_second_start_uses_the_same_state(start, tmp_path):
    config = serve_config(model_config())
    authority = []
    for _ in range(2):
        cluster = start(config, state=tmp_path / "kept")
        assert cluster.chat(max_tokens=1).status_code == 200
        authority.append({
            path.name: path.read_bytes()
            for path in (tmp_path / "kept").rglob("*.pem")
            if "authority" in path.name or path.name.startswith("ca")})
        assert cluster.stop() == 0
    assert authority[0] and authority[0] == authority[1]


def start_beside_a_broken_model(start, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(WEIGHTS.read_bytes()[:1 << 20])
    return start(serve_config(
        model_config(),
        {**model_config("broken"),
         "model_loading_config": {"model_id": "broken",
                                  "model_source": str(broken)},
         "deployment_config": {"max_constructor_retry_count": 1}}))


def test_a_replica_that_cannot_load_is_given_up(start, tmp_path):
    cluster = start_beside_a_broken_model(start, tmp_path)
    model = wait_for(lambda: next(
        (one for one in cluster.status()["models"]
         if one["model"] == "broken" and one["status"] == "DEPLOY_FAILED"),
        None), "the broken model is not given up")
    assert "broken.gguf" in model["reason"]
    assert cluster.chat(model="smollm2").status_code == 200


def test_what_is_no_model_is_tried_once_per_deployment(start, tmp_path):
    notes = tmp_path / "notes.gguf"
    notes.write_text("what I wanted to say")
    config = serve_config(model_config("notes", model_loading_config={
        "model_id": "notes", "model_source": str(notes)}))
    cluster = start(config, ready=False)

    def given_up(times):
        wait_for(lambda: cluster.said().count("not started again") == times,
                 "it is not given up")
        model = cluster.model("notes")
        assert model["status"] == "DEPLOY_FAILED"
        assert "notes.gguf: not a GGUF file" in model["reason"]
        assert model["replicas"][0]["restarts"] == 0
    given_up(1)
    answer = cluster.admin.put("/api/serve/applications/", content=config)
    assert answer.status_code == 200, answer.text
    given_up(2)


def test_each_fact_is_logged_once(start, tmp_path):
    cluster = start_beside_a_broken_model(start, tmp_path)
    wait_for(lambda: cluster.model("broken")["status"] == "DEPLOY_FAILED",
             "the broken model is not given up")
    (failed,) = cluster.model("broken")["replicas"]
    assert cluster.stop() == 0
    said = cluster.said()
    for what, times in [("node head joined", 1), ("joined the head as head", 1),
                        ("replica llm/broken#1 failed", failed["restarts"] + 1),
                        ("not started again", 1), ("this node has stopped", 1)]:
        assert said.count(what) == times, (what, said)
