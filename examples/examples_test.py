"""Runs one of the example programs as its first comment says.

  examples_test.py local_engine|own_service PROGRAM MODEL.gguf

Fails by its exit status.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

PATIENCE_S = 60


def run(*command):
    return subprocess.run(command, capture_output=True, timeout=PATIENCE_S)


def faults(program, *arguments):
    """What must be refused: no arguments, a model that is not there."""
    assert run(program).returncode == 2
    missing = run(program, "no-such-file.gguf", *arguments)
    assert missing.returncode == 1, missing
    assert b"no-such-file.gguf" in missing.stderr, missing


def local_engine(program, model):
    faults(program, "Hello")
    first = run(program, model, "Hello, world", "12")
    assert first.returncode == 0, first
    assert b" tokens in " in first.stderr, first
    assert len(first.stdout) > 1, first
    assert run(program, model, "Hello, world", "12").stdout == first.stdout
    assert run(program, model, "Hello, world", "0").returncode == 2


def ask(url, body):
    """The answer, once the model can be asked."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            request = urllib.request.Request(
                url, json.dumps(body).encode(),
                {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end:
                raise
            time.sleep(0.05)


def own_service(program, model):
    faults(program)
    with subprocess.Popen([program, model, "0"], stdout=subprocess.PIPE,
                          text=True) as service:
        try:
            url = service.stdout.readline().strip()
            body = {"model": "own", "max_tokens": 5, "temperature": 0,
                    "ignore_eos": True}
            chat = ask(url + "/v1/chat/completions", body | {
                "messages": [{"role": "user", "content": "Hello"}]})
            assert chat["usage"]["completion_tokens"] == 5, chat
            assert chat["choices"][0]["finish_reason"] == "length", chat
            plain = [ask(url + "/v1/completions", body | {"prompt": prompt})
                     for prompt in ("one", "one")]
            texts = [one["choices"][0]["text"] for one in plain]
            assert texts[0] == texts[1], texts
            service.send_signal(signal.SIGTERM)
            assert service.wait(PATIENCE_S) == 0
        finally:
            service.kill()


if __name__ == "__main__":
    name, program, model = sys.argv[1:]
    {"local_engine": local_engine, "own_service": own_service}[name](
        program, model)
