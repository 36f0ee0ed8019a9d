"""The commands of Ray Serve LLM's documentation, with another port."""

import json
import subprocess

import pytest

from cluster import DEADLINE_S, WEIGHTS, serve_config

# What the documentation deploys; only model_source is a file here.
CONFIG = serve_config({
    "model_loading_config": {"model_id": "qwen-0.5b",
                             "model_source": str(WEIGHTS)},
    "accelerator_type": "A10G",
    # The commands give no max_tokens and no seed: the context bounds how long a
    # rambling answer can get.
    "engine_kwargs": {"max_model_len": 256},
    "deployment_config": {
        "autoscaling_config": {"min_replicas": 1, "max_replicas": 2}}})

CHAT = """curl -X POST http://localhost:8000/v1/chat/completions \\
     -H "Content-Type: application/json" \\
     -H "Authorization: Bearer fake-key" \\
     -d '{
           "model": "qwen-0.5b",
           "messages": [{"role": "user", "content": "Hello!"}]%s
         }'"""


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    from cluster import Cluster
    from conftest import running
    # The file asks for an A10G; here it is served on the CPU.
    with running(Cluster(tmp_path_factory.mktemp("documented"), CONFIG,
                         "--device", "cpu")) as one:
        yield one


def shell(cluster, command):
    assert "localhost:8000" in command
    command = command.replace("localhost:8000", f"127.0.0.1:{cluster.port}")
    return subprocess.run(["bash", "-c", command], check=True, text=True,
                          capture_output=True, timeout=DEADLINE_S).stdout


def test_the_documented_command_is_answered(documented):
    answer = json.loads(shell(documented, CHAT % ""))
    assert answer["model"] == "qwen-0.5b"
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_documented_command_streams(documented):
    out = shell(documented, CHAT % ',\n           "stream": true')
    frames = out.strip().split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    assert frames[-1] == "data: [DONE]"
    assert len(frames) > 3


def test_the_models_are_listed(documented):
    listed = json.loads(shell(documented,
                              "curl http://localhost:8000/v1/models"))
    assert [model["id"] for model in listed["data"]] == ["qwen-0.5b"]


def test_what_wants_a_gpu_runs_on_the_cpu_when_told_to(documented):
    (replica,) = documented.replicas("qwen-0.5b")
    assert replica["device"].startswith("cpu")


def test_status_says_what_scales(documented):
    scaling = documented.model("qwen-0.5b")["scaling"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 2)
