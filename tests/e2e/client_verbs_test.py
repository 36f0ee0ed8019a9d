"""The verbs that are clients of a service: chat and bench."""

import http.server
import json
import os
import pty
import signal
import subprocess
import threading

import pytest

from cluster import BINARY, run_verb, wait_for


class Terminal:
    """`troupe chat` in a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(BINARY, [str(BINARY), "chat", *arguments])
        os.set_blocking(self.fd, False)
        self.text = ""

    def read(self):
        try:
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return self.text

    def wait_for(self, words, after=0):
        """Until they stand in what came later than `after`; where they end."""
        def seen():
            found = self.read().find(words, after)
            return found + len(words) if found >= 0 else None
        return wait_for(seen, f"no {words!r} in {self.text[after:]!r}")

    def type(self, text):
        os.write(self.fd, text.encode())


@pytest.fixture
def terminal(cluster):
    one = Terminal("--url", cluster.url, "--temperature", "0")
    yield one
    try:
        os.kill(one.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.close(one.fd)


def ended(terminal):
    pid, status = wait_for(
        lambda: next((found for found in [os.waitpid(terminal.pid, os.WNOHANG)]
                      if found[0]), None), "it does not end")
    return os.waitstatus_to_exitcode(status)


def test_a_conversation_remembers_what_was_said(terminal, cluster):
    asked = terminal.wait_for("> ")
    terminal.type("My name is Ada.\n")
    first = terminal.wait_for("\n> ", asked + len("My name is Ada.\r\n"))
    terminal.type("What is my name?\n")
    terminal.wait_for("\n> ", first + len("What is my name?\r\n"))
    answers = [text.replace("\r", "").split("\n", 1)[1].rsplit("\n> ", 1)[0]
               for text in (terminal.text[asked:first], terminal.text[first:])]
    # The same as a client with the whole conversation gets.
    expected = cluster.http.post("/v1/chat/completions", json={
        "temperature": 0, "messages": [
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": "What is my name?"}]}).json()
    assert answers[1] == expected["choices"][0]["message"]["content"]
    terminal.type("/quit\n")
    assert ended(terminal) == 0


def test_ctrl_c_stops_an_answer_and_not_the_program(terminal, cluster):
    asked = terminal.wait_for("> ")
    long = "Count from one to five hundred, one number a line."
    terminal.type(long + "\n")
    echo = terminal.wait_for(long, asked)
    wait_for(lambda: len(terminal.read()) > echo + 8, "no answer")
    terminal.type("\x03")
    stopped = terminal.wait_for("\n> ", echo)
    wait_for(cluster.is_idle, "it goes on in the replica")
    # At the prompt it drops what was typed.
    terminal.type("never sent\x03")
    again = terminal.wait_for("\n> ", stopped)
    terminal.type("/system Answer briefly.\n")
    told = terminal.wait_for("> ", again + len("/system Answer briefly."))
    terminal.type("Hello.\n")
    terminal.wait_for("\n> ", told + len("Hello.\r\n"))
    terminal.type("\x04")
    assert ended(terminal) == 0


def test_what_is_piped_in_is_answered_once(cluster):
    done = subprocess.run(
        [BINARY, "chat", "--url", cluster.url + "/v1", "--temperature", "0",
         "--max-tokens", "8"],
        input="What is the capital\nof France?", text=True,
        capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = cluster.chat("What is the capital\nof France?").json()
    assert done.stdout == answer["choices"][0]["message"]["content"] + "\n"


@pytest.mark.parametrize("nothing", ["", "\n", " \t\r\n\n"])
def test_nothing_piped_in_asks_nothing(cluster, nothing):
    served = "ray_vllm_prompt_tokens_total"
    before = cluster.metrics().get(served, 0)
    done = subprocess.run([BINARY, "chat", "--url", cluster.url],
                          input=nothing, text=True, capture_output=True,
                          timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cluster.metrics().get(served, 0) == before


def test_chat_says_what_is_wrong(cluster):
    nobody = run_verb("chat", "--url", "http://127.0.0.1:1")
    assert nobody.returncode == 1 and "127.0.0.1:1" in nobody.stderr
    assert run_verb("chat", "--url", "ftp://x").returncode == 2
    unknown = subprocess.run([BINARY, "chat", "--url", cluster.url, "--model",
                              "other"], input="x", text=True,
                             capture_output=True, timeout=60)
    assert unknown.returncode == 1 and "other" in unknown.stderr


class Listing(http.server.BaseHTTPRequestHandler):
    """A service that has models and nothing else."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": self.server.models}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(404)
        self.end_headers()
        self.wfile.write(json.dumps(
            {"error": {"message": f"asked: {asked['model']}"}}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def listing():
    server = http.server.HTTPServer(("127.0.0.1", 0), Listing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize("verb", [["chat", "--url"], ["bench"]])
def test_the_model_is_chosen_among_those_that_generate_text(listing, verb):
    def ask(*models):
        listing.models = models
        url = f"http://127.0.0.1:{listing.server_port}"
        done = subprocess.run([BINARY, *verb, url], input="x", text=True,
                              capture_output=True, timeout=60)
        return done.returncode, done.stdout + done.stderr
    a, b = {"id": "a", "task": "generate"}, {"id": "b"}  # not Troupe's
    other = {"id": "vectors", "task": "embed"}, {"id": "pairs", "task": "score"}
    status, said = ask(*other, a, {"id": "c", "task": None}, b)
    assert status == 2, said
    assert said.endswith("choose with --model: a, c, b\n")
    for one in a, b:
        status, said = ask(*other, one)
        assert status == 1 and f"asked: {one['id']}" in said
    status, said = ask(*other)
    assert status == 1 and "no model that generates text" in said


@pytest.mark.parametrize("loop", [["--concurrency", 3],
                                  ["--rate", 40, "--concurrency", 64]])
def test_bench_counts_what_the_service_counts(cluster, loop):
    before = cluster.metrics()
    done = run_verb("bench", cluster.url, "--requests", 12, "--max-tokens", 6,
                    "--prompt-words", 9, "--json", *loop)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    after = cluster.metrics()
    assert found["answered"] == found["begun"] == 12
    assert found["output_tokens"] == 12 * 6
    for key, metric in [("output_tokens", "ray_vllm_generation_tokens_total"),
                        ("prompt_tokens", "ray_vllm_prompt_tokens_total")]:
        assert found[key] == after[metric] - before[metric], metric
    first = found["time_to_first_token_ms"]
    assert 0 < first["p50"] <= first["p90"] <= first["p99"] <= first["max"]
    assert first["max"] <= found["request_ms"]["max"]
    assert first["max"] / 1000 <= found["seconds"]


@pytest.mark.parametrize("loop", [["--concurrency", "2"], ["--rate", "50"]])
def test_bench_tells_at_ctrl_c_what_it_measured(cluster, loop):
    served = "ray_vllm_request_success_total"
    before = cluster.metrics().get(served, 0)
    bench = subprocess.Popen(
        [BINARY, "bench", cluster.url, "--requests", "1000000", "--max-tokens",
         "4", "--json", *loop], stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: cluster.metrics().get(served, 0) >= before + 5,
             "nothing is answered")
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=60)
    assert bench.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"] is True
    assert 0 < found["answered"] <= found["begun"] < 1000000
    assert found["output_tokens"] == 4 * found["answered"]
    assert found["seconds"] > 0 and found["request_ms"]["p50"] > 0
    wait_for(cluster.is_idle, "it goes on in the replica")


def test_bench_shows_a_table(cluster):
    done = run_verb("bench", cluster.url, "--requests", 2, "--max-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert "2 answered, 0 refused, 0 failed" in done.stdout
    assert "time to first token" in done.stdout


class Refusing(http.server.BaseHTTPRequestHandler):
    """A service that cuts off every second answer and refuses the others."""

    count = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Refusing.count += 1
        self.send_response(200 if Refusing.count % 2 else 503)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if Refusing.count % 2:
            self.wfile.write(b'data: {"choices":[{"text":"a"}]}\n\n')

    def log_message(self, *_):
        pass


def test_bench_tells_refusals_from_failures():
    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = run_verb("bench", f"127.0.0.1:{server.server_port}", "--model",
                        "m", "--requests", 6, "--json")
    finally:
        server.shutdown()
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["refused"], found["failed"], found["answered"]) == (3, 3, 0)
    assert "cut off" in found["failure"]
