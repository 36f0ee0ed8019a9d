"""What a node does with GPUs. There are none here: a fake of NVML says that
there are two, and a module computes by the CPU what a GPU would."""

import json
import re
import subprocess
import sys

import pytest

from cluster import (
    BINARY, ROOT, model_config, run_verb, serve_config, wait_for,
)

BUILD = BINARY.parent
TINY = ROOT / "tests/reference/tiny/bf16-llama3.gguf"


def built(pattern):
    (path,) = BUILD.rglob(pattern)
    return path


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """The file that tells which process opened which GPUs."""
    log = tmp_path / "gpus"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(built("libnvidia-ml.so.1").parent))
    monkeypatch.setenv("TROUPE_CUDA_MODULE", str(built("libemulated_gpu.so")))
    monkeypatch.setenv("EMULATED_GPU_LOG", str(log))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return log


def tiny(name="tiny", kind="gpu", **more):
    entry = model_config(name, **{
        "engine_kwargs": {"max_model_len": 64, "max_num_seqs": 2,
                          "max_num_batched_tokens": 16}, **more})
    entry["model_loading_config"]["model_source"] = str(TINY)
    entry["accelerator_config"] = {"kind": kind}
    return entry


def opened(log):
    """GPUs by process."""
    return dict(line.split(" ", 1) for line in log.read_text().splitlines())


def ask(cluster, model="tiny"):
    answer = cluster.complete("abc", model=model, max_tokens=4, logprobs=3)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["logprobs"]


def test_a_model_runs_on_a_gpu_of_the_node(start, two_gpus):
    cluster = start(serve_config(
        tiny(accelerator_type="A100-80G"), tiny("cpu", kind="cpu")), ready=False)
    cluster.wait_for_models("tiny", "cpu")
    (gpu,), (cpu,) = cluster.replicas("tiny"), cluster.replicas("cpu")
    assert gpu["device"].startswith("cuda: ")
    assert cpu["device"].startswith("cpu: ")
    assert opened(two_gpus) == {str(gpu["pid"]): "0"}
    ours, theirs = ask(cluster), ask(cluster, "cpu")
    assert ours == ask(cluster)
    for token, value in ours["top_logprobs"][0].items():
        assert theirs["top_logprobs"][0].get(token, value) == pytest.approx(
            value, abs=0.1)
    (node,) = cluster.status()["nodes"]
    assert set(node["engines"]) == {"cpu", "cuda"}


def test_replicas_share_gpus_and_none_gets_what_is_not_left(start, two_gpus):
    half = {"ray_actor_options": {"num_gpus": 0.5}, "num_replicas": 2}
    whole = {"ray_actor_options": {"num_gpus": 1}}
    cluster = start(serve_config(
        tiny("halves", deployment_config=half),
        tiny("whole", deployment_config=whole),
        tiny("more", deployment_config=whole)), ready=False)
    names = ["halves", "whole", "more"]
    wait_for(lambda: sum(len(cluster.replicas(name)) for name in names) == 3,
             cluster.said())
    by_gpu = {}
    for pid, name in opened(two_gpus).items():
        by_gpu.setdefault(name, []).append(pid)
    assert set(by_gpu) == {"0", "1"}
    assert sorted(map(len, by_gpu.values())) == [1, 2]
    left = next(name for name in names if not cluster.replicas(name))
    assert left != "halves"
    assert "GPU" in json.dumps(cluster.model(left))


def test_fp8_is_for_gpus_takes_less_and_is_another_class(start, two_gpus,
                                                         tmp_path):
    kwargs = {"max_model_len": 64, "max_num_seqs": 2,
              "max_num_batched_tokens": 16}
    fp8 = {**kwargs, "quantization": "fp8", "kv_cache_dtype": "fp8"}
    file = tmp_path / "plan.yaml"
    kv_tokens = {"kv_cache_memory_bytes": 1 << 16, "max_model_len": 16}
    planned = []
    for more in {}, {"kv_cache_dtype": "fp8"}:
        file.write_text(serve_config(
            tiny(engine_kwargs={**kwargs, **kv_tokens, "max_num_seqs": 64,
                                "max_num_batched_tokens": 64, **more})))
        said = run_verb("plan", file)
        found = re.search(r"(\d+) tokens", said.stdout)
        assert found, said
        planned.append(int(found.group(1)))
    assert planned[1] >= 2 * planned[0]

    cluster = start(serve_config(
        tiny(), tiny("small", engine_kwargs=fp8),
        tiny("cpu", kind="cpu", engine_kwargs=fp8)), ready=False)
    cluster.wait_for_models("tiny", "small")
    plain = cluster.complete("abc", model="tiny", max_tokens=4).json()
    asked = [cluster.complete("abc", model="small", max_tokens=4).json()
             for _ in range(2)]
    assert asked[0]["choices"] == asked[1]["choices"]
    assert asked[0]["system_fingerprint"] != plain["system_fingerprint"]
    wait_for(lambda: "fp8_e4m3 is for GPUs" in json.dumps(cluster.model("cpu")),
             cluster.said())


def test_only_listed_gpus_are_the_nodes(start, two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    cluster = start(serve_config(tiny()), ready=False)
    cluster.wait_for_models("tiny")
    assert list(opened(two_gpus).values()) == ["1"]
    (node,) = cluster.status()["nodes"]
    assert node["resources"]["GPU"] == 1


def test_without_the_module_a_model_that_wants_a_gpu_waits(start, two_gpus,
                                                           monkeypatch):
    monkeypatch.setenv("TROUPE_CUDA_MODULE", "/nowhere/libtroupe_cuda.so")
    cluster = start(serve_config(tiny()), ready=False)
    wait_for(lambda: "has no GPU engine" in json.dumps(cluster.model("tiny")),
             "it does not say why")
    (node,) = cluster.status()["nodes"]
    assert node["engines"] == ["cpu"]


def test_the_check_for_a_real_gpu_passes_on_the_emulated_ones(two_gpus,
                                                              tmp_path):
    out = tmp_path / "seen.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/gpu_serve_check.py", BINARY, TINY, out],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["devices"] == ["cuda: emulated GPU"] * 2
