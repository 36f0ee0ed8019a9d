"""A node that serves from a GPU, asked by the official client: part of
scripts/gpu-check.sh. Needs a binary, the module, a GPU and `openai`; nothing of
the tests.

  gpu_serve_check.py TROUPE MODEL.gguf OUT.json

Exits with 1 and says what failed. OUT.json holds what was seen.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai

SERVING = re.compile(r"serving http://\S+:(\d+) \(admin: http://\S+:(\d+)\)")
DEADLINE_S = 120
LONG = {"prompt": "abc abc", "temperature": 0, "max_tokens": 40,
        "extra_body": {"ignore_eos": True}}


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {DEADLINE_S} s: {what}")


def config(model):
    """Two replicas, each with half of the GPU."""
    return json.dumps({"applications": [{
        "name": "llm", "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [{
            "model_loading_config": {"model_id": "m",
                                     "model_source": str(model)},
            "accelerator_config": {"kind": "gpu"},
            "deployment_config": {"num_replicas": 2,
                                  "ray_actor_options": {"num_gpus": 0.5}},
            "engine_kwargs": {"max_model_len": 64, "max_num_seqs": 4,
                              "max_num_batched_tokens": 16}}]}}]})


class Served:
    def __init__(self, troupe, model, folder):
        file = folder / "serve.yaml"
        file.write_text(config(model))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [troupe, "run", file, "--port", "0", "--admin-port", "0",
                 "--state-dir", folder / "state"], stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        port, self.admin = wait_for(self.ports, "no ports").groups()
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1",
                                    api_key="any", max_retries=0,
                                    timeout=DEADLINE_S)

    def ports(self):
        assert self.process.poll() is None, self.said()
        return SERVING.search(self.said())

    def said(self):
        return self.log.read_text(errors="replace")

    def replicas(self):
        with urllib.request.urlopen(
                f"http://127.0.0.1:{self.admin}/api/status") as answer:
            (model,) = json.load(answer)["models"]
        return [one for one in model["replicas"] if one["phase"] == "ready"]

    def both(self):
        found = self.replicas()
        return found if len(found) == 2 else None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)


def text_of(chunks):
    return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def check(served):
    """What was seen; asserts what has to be."""
    replicas = wait_for(served.both, "two replicas are not ready: "
                        + served.said())
    seen = {"devices": [one["device"] for one in replicas]}
    assert all(one["device"].startswith("cuda: ") for one in replicas)
    ask = served.client.completions.create
    whole = ask(model="m", **LONG).choices[0].text
    again = [ask(model="m", **LONG).choices[0].text for _ in range(4)]
    assert again == [whole] * 4, "the same request, other tokens"
    assert text_of(ask(model="m", stream=True, **LONG)) == whole
    seeded = {"prompt": "abc", "temperature": 1, "seed": 7, "max_tokens": 16}
    drawn = {ask(model="m", **seeded).choices[0].text for _ in range(3)}
    assert len(drawn) == 1, "the same seed, other tokens"
    seen["text"] = whole

    # Streams that lose their replica on the way do not notice. Short ones may
    # be over before it is killed, so it is tried again until one has moved.
    for attempt in range(1, 9):
        replicas = wait_for(served.both, "a killed replica does not come back")
        streams = [ask(model="m", stream=True, **LONG) for _ in range(8)]
        firsts = [next(iter(one)) for one in streams]
        os.kill(replicas[attempt % 2]["pid"], signal.SIGKILL)
        for first, rest in zip(firsts, streams):
            assert text_of([first, *rest]) == whole, "a stream broke"
        moved = served.said().count("goes on at")
        if moved > 0:
            break
    assert moved > 0, "no stream was there when its replica was killed"
    seen["failover"] = f"{attempt} replicas killed, {moved} streams moved"
    return seen


def main(troupe, model, out):
    with tempfile.TemporaryDirectory() as folder:
        served = Served(troupe, pathlib.Path(model).resolve(),
                        pathlib.Path(folder))
        try:
            seen = check(served)
        finally:
            served.stop()
    pathlib.Path(out).write_text(json.dumps(seen, indent=1) + "\n")
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
