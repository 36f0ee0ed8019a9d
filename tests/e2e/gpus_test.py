"""What a node does with GPUs. There are none here: a fake of NVML says that
there are two, and a module computes by the CPU what a GPU would."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from cluster import (BINARY, ROOT, model_config, run_verb, serve_config,
                     wait_for)

BUILD = BINARY.parent
TINY = ROOT / "tests/reference/tiny/bf16-llama3.gguf"
# It has two heads.
EVEN = ROOT / "tests/reference/tiny/q4_1-linear.gguf"


def built(pattern):
    (path,) = BUILD.rglob(pattern)
    return path


def use(monkeypatch, module, *libraries):
    """A module, and who stands in the place of NVIDIA's libraries."""
    monkeypatch.setenv("TROUPE_CUDA_MODULE", str(built(module)))
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(
        str(built(library).parent) for library in libraries))


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """The file that tells which process opened which GPUs."""
    log = tmp_path / "gpus"
    use(monkeypatch, "libemulated_gpu.so", "libnvidia-ml.so.1")
    monkeypatch.setenv("EMULATED_GPU_LOG", str(log))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return log


def tiny(name="tiny", kind="gpu", source=TINY, ranks=1, **more):
    entry = model_config(name, **{
        "engine_kwargs": {"max_model_len": 64, "max_num_seqs": 2,
                          "max_num_batched_tokens": 16,
                          "tensor_parallel_size": ranks}, **more})
    entry["model_loading_config"]["model_source"] = str(source)
    entry["accelerator_config"] = {"kind": kind}
    return entry


def opened(log):
    """The last GPU by process."""
    return dict(line.split(" ", 1) for line in log.read_text().splitlines())


def opened_by(log, pid):
    return sorted(gpu for process, gpu in map(str.split, log.read_text().splitlines())
                  if process == str(pid))


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
    wait_for(lambda: cluster.replicas("tiny")[0].get("gpus"), "no use is seen")
    assert cluster.replicas("tiny")[0]["gpus"] == [
        {"gpu": "0", "memory_used_bytes": 1 << 30,
         "memory_total_bytes": 80 << 30, "busy_percent": 93}]
    assert "gpus" not in cluster.replicas("cpu")[0]
    assert "GPU 0: 1024 of 81920 MiB, 93 % busy" in run_verb(
        "status", "--admin-port", cluster.admin_port).stdout
    seen = cluster.metrics()
    assert seen["troupe_gpu_busy_ratio"] == 0.93
    assert seen["troupe_gpu_memory_used_bytes"] == 1 << 30
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


def test_a_part_of_a_gpu_is_of_one_gpu(start, two_gpus):
    """Three times 0.6 are less than two, but no GPU has twice 0.6."""
    cluster = start(serve_config(
        tiny("parts", deployment_config={
            "ray_actor_options": {"num_gpus": 0.6}, "num_replicas": 3}),
        tiny("small", deployment_config={
            "ray_actor_options": {"num_gpus": 0.4}})), ready=False)
    wait_for(lambda: len(cluster.replicas("parts")) == 2 and
             len(cluster.replicas("small")) == 1, cluster.said())
    reason = cluster.model("parts")["reason"]
    assert "GPU free" in reason
    # Nobody was started for nothing: each has the GPU that it opened.
    assert "not free for it" not in cluster.said()
    assert len(opened(two_gpus)) == 3
    by_gpu = sorted(opened(two_gpus).values())
    assert by_gpu in (["0", "0", "1"], ["0", "1", "1"])


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

    file.write_text(serve_config(tiny(kind="cpu", engine_kwargs=fp8)))
    assert "fp8 is for GPUs" in run_verb("validate", file).stderr

    cluster = start(serve_config(tiny(), tiny("small", engine_kwargs=fp8)),
                    ready=False)
    cluster.wait_for_models("tiny", "small")
    plain = cluster.complete("abc", model="tiny", max_tokens=4).json()
    asked = [cluster.complete("abc", model="small", max_tokens=4).json()
             for _ in range(2)]
    assert asked[0]["choices"] == asked[1]["choices"]
    assert asked[0]["system_fingerprint"] != plain["system_fingerprint"]


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


def pair(name="pair", **more):
    """A model on two GPUs."""
    return tiny(name, source=EVEN, ranks=2, **more)


def test_a_model_runs_on_two_gpus_of_the_node(start, two_gpus):
    cluster = start(serve_config(pair(), tiny("cpu", kind="cpu", source=EVEN)),
                    ready=False)
    cluster.wait_for_models("pair", "cpu")
    (gpu,) = cluster.replicas("pair")
    assert gpu["device"] == "cuda: emulated GPU, 2 ranks"
    # One process, which has both.
    assert opened_by(two_gpus, gpu["pid"]) == ["0", "1"]
    assert set(opened(two_gpus)) == {str(gpu["pid"])}
    ours, theirs = ask(cluster, "pair"), ask(cluster, "cpu")
    shared = ours["top_logprobs"][0].keys() & theirs["top_logprobs"][0].keys()
    assert len(shared) >= 2
    for token in shared:
        assert ours["top_logprobs"][0][token] == pytest.approx(
            theirs["top_logprobs"][0][token], abs=0.1)
    # A row alone is that row in a batch.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda _: ask(cluster, "pair"), range(4)))
    assert together == [ours] * 4


LONG = {"model": "pair", "prompt": "abc", "temperature": 0, "max_tokens": 40,
        "ignore_eos": True, "stream": True}


@pytest.fixture
def slowly(monkeypatch, tmp_path):
    """A stream with something that happens before it is at its end, however
    late: until then the GPUs are slow."""
    slow = tmp_path / "slow"
    monkeypatch.setenv("EMULATED_GPU_SLOW", str(slow))

    def stream_with(cluster, disturb):
        def disturb_and_hurry():
            disturb()
            slow.unlink()

        slow.touch()
        return cluster.stream_with(LONG, disturb_and_hurry)

    return stream_with


def test_a_replica_on_two_gpus_that_is_killed_goes_on_elsewhere(
        start, two_gpus, slowly):
    cluster = start(serve_config(pair()), ready=False)
    cluster.wait_for_models("pair")
    whole = cluster.stream_with(LONG, lambda: None)
    (before,) = cluster.replicas("pair")
    assert whole == slowly(
        cluster, lambda: os.kill(before["pid"], signal.SIGKILL))
    (after,) = cluster.replicas("pair")
    assert after["pid"] != before["pid"]
    assert opened_by(two_gpus, after["pid"]) == ["0", "1"]


def test_a_rank_on_a_gpu_that_hangs_is_ended_and_the_stream_goes_on(
        start, two_gpus, monkeypatch, tmp_path, slowly):
    hang = tmp_path / "hang"
    monkeypatch.setenv("EMULATED_GPU_HANG", str(hang))
    cluster = start(serve_config(pair(
        deployment_config={"health_check_period_s": 0.5})), ready=False)
    cluster.wait_for_models("pair")
    whole = cluster.stream_with(LONG, lambda: None)
    (before,) = cluster.replicas("pair")

    def disturb():
        hang.touch()
        wait_for(lambda: not any(one.pid == before["pid"]
                                 for one in cluster.family()), "it lives")
        hang.unlink()

    assert slowly(cluster, disturb) == whole
    assert "it made no step while requests were running" in cluster.said()


def test_too_few_gpus_or_parts_of_them_are_no_gpus_for_ranks(start, two_gpus):
    cluster = start(serve_config(
        tiny("four", source=EVEN, ranks=4),
        pair("halves", deployment_config={
            "ray_actor_options": {"num_gpus": 0.5}}),
        tiny("unasked", placement_group_config={
            "bundles": [{"GPU": 1}, {"GPU": 1}]})), ready=False)

    def reasons():
        return {name: json.dumps(cluster.model(name))
                for name in ("four", "halves", "unasked")}

    wait_for(lambda: all("GPU" in text for text in reasons().values()),
             "it does not say why")
    said = reasons()
    assert "has 0 of 2 GPU free" in said["four"]
    assert ("tensor_parallel_size 2 computes on 2 whole GPUs, 0.5 are asked "
            "for") in said["halves"]
    assert ("tensor_parallel_size 1 computes on 1 whole GPU, 2 are asked "
            "for") in said["unasked"]


def test_what_ranks_on_gpus_cannot_do_is_said_by_name(start, two_gpus):
    cluster = start(serve_config(
        tiny("odd", ranks=2,
             deployment_config={"max_constructor_retry_count": 1})), ready=False)
    reason = "tensor_parallel_size: the model's 3 heads cannot be divided by 2"
    wait_for(lambda: reason in cluster.said(), "it does not say why")


# What a module says that it is, and what stands in the place of libraries.
MODULES = {
    "libemulated_gpu.so": ("emulated GPU", []),
    # What the CUDA compiler made, where there is one.
    "libinterpreted_gpu.so": ("PTX interpreter, sm90-cuda13",
                              ["libcublasLt.so.13"]),
}


@pytest.mark.parametrize("module", [name for name in MODULES
                                    if any(BUILD.rglob(name))])
def test_the_check_for_a_real_gpu_passes_on_those_that_are_none(
        module, two_gpus, tmp_path, monkeypatch):
    device, libraries = MODULES[module]
    use(monkeypatch, module, "libnvidia-ml.so.1", *libraries)
    out = tmp_path / "seen.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/gpu_serve_check.py", BINARY, TINY, out],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["devices"] == ["cuda: " + device] * 2
