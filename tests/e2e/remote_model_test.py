"""A cluster whose model is on a hub: replicas fetch it, once, and say so."""

import json
import re
import subprocess

import httpx
import openai
import pytest

from cluster import (BINARY, DEADLINE_S, ROOT, WEIGHTS, Cluster, run_verb,
                     serve_config, wait_for)
from hub import COMMIT, TOKEN, Hub, pull_environment

TINY = ROOT / "tests/reference/tiny"
MODEL = "org/smollm2-GGUF"
SIZE = WEIGHTS.stat().st_size


@pytest.fixture
def hub():
    one = Hub({
        MODEL: {"README.md": b"#", "m.Q4_1.gguf": WEIGHTS.read_bytes()},
        "org/tiny": {"m.gguf": (TINY / "q4_1-linear.gguf").read_bytes()}})
    yield one
    one.close()


def config(hub, folder, source=MODEL, **more):
    environment = pull_environment(folder, hub)
    variables = {name: environment[name] for name in (
        "HF_ENDPOINT", "HF_HOME", "TROUPE_CACHE", "NO_PROXY",
        "TROUPE_DOWNLOAD_STALL_S")}
    return serve_config({
        "model_loading_config": {"model_id": "smollm2",
                                 "model_source": source},
        "accelerator_config": {"kind": "cpu"},
        "engine_kwargs": {"max_model_len": 128},
        "deployment_config": {"num_replicas": 2},
        "runtime_env": {"env_vars": {**variables, "HF_TOKEN": TOKEN,
                                     "HF_HUB_ENABLE_HF_TRANSFER": "1",
                                     **more}}})


def test_two_replicas_are_one_download_that_run_shows(tmp_path, hub):
    hub.asks_token.add(MODEL)
    hub.bytes_per_s = 500_000  # until it was seen
    one = Cluster(tmp_path / "run", config(hub, tmp_path))
    try:
        wait_for(lambda: "fetch   smollm2: 2 replicas" in one.said(),
                 "no replica fetches")
        hub.bytes_per_s = 0
        one.start()
        wait_for(lambda: len(one.replicas()) == 2, "not both are ready")
        assert one.chat().json()["choices"][0]["message"]["content"]
        assert hub.sent("m.Q4_1.gguf") == SIZE
        assert all(replica["reason"] == "" for replica in one.replicas())
        assert TOKEN not in one.said() + json.dumps(one.status()) \
            + one.admin.get("/api/config").text \
            + one.admin.get("/metrics").text
    finally:
        assert one.stop() == 0


def test_a_hub_that_is_gone_does_not_end_a_model(tmp_path, hub, start):
    assert start(config(hub, tmp_path, "org/tiny")).stop() == 0
    hub.forget()
    offline = start(config(hub, tmp_path, "org/tiny", HF_HUB_OFFLINE="1"))
    assert offline.chat().status_code == 200
    assert hub.requests == []
    offline.stop()
    hub.close()
    one = start(config(hub, tmp_path, "org/tiny"))
    assert one.chat().status_code == 200
    assert "using what the cache has" in one.said()


def test_a_model_that_cannot_be_fetched_says_why(tmp_path, hub):
    hub.gated.add(MODEL)
    one = Cluster(tmp_path / "run", config(hub, tmp_path))
    try:
        wait_for(lambda: "accept its terms" in one.said(), "it says no reason")
        assert TOKEN not in one.said()
    finally:
        one.stop()


def replicas(admin_port):
    answer = httpx.get(f"http://127.0.0.1:{admin_port}/api/status",
                       trust_env=False, timeout=DEADLINE_S).json()
    return [replica for model in answer["models"]
            for replica in model["replicas"]]


def test_deploy_and_status_show_the_download(tmp_path, hub):
    hub.bytes_per_s = 500_000  # until everything was seen
    state = tmp_path / "state"
    ports = ["--port", "0", "--http-port", "0", "--admin-port", "0"]
    said = run_verb("start", "--head", *ports, "--state-dir", state)
    assert said.returncode == 0, said.stderr
    try:
        port = json.loads((state / "node.json").read_text())["admin_port"]
        admin = ["-a", f"127.0.0.1:{port}"]
        path = tmp_path / "serve.yaml"
        path.write_text(config(hub, tmp_path))
        said = tmp_path / "said"
        with said.open("wb") as to:
            deploy = subprocess.Popen(
                [BINARY, "deploy", path, "--wait", *admin], stdout=to,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        fetching = f"fetching {MODEL}: m.Q4_1.gguf"
        wait_for(lambda: fetching in said.read_text(),
                 "deploy does not show it")
        doing = wait_for(lambda: [
            replica for replica in replicas(port)
            if replica["reason"] == fetching and replica["bytes_done"] > 0],
            "status does not show it")[0]
        assert doing["bytes_total"] == SIZE
        wait_for(lambda: any(
            replica["reason"].startswith("waiting for another process")
            for replica in replicas(port)), "no replica waits")
        text = run_verb("status", *admin).stdout
        assert re.search(r"loading.* of 98 MB: fetching " + MODEL, text), text
        hub.bytes_per_s = 0
        assert deploy.wait(DEADLINE_S) == 0, said.read_text()
        assert hub.sent("m.Q4_1.gguf") == SIZE
        assert TOKEN not in run_verb("config", *admin).stdout
        plan = run_verb("plan", path)
        assert plan.returncode == 0 and "each" in plan.stdout, plan.stdout
    finally:
        run_verb("stop", "--state-dir", state)


# -- a directory of each kind

FAMILIES = ROOT / "tests/reference/families"
ENCODERS = ROOT / "tests/reference/encoders"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def byte_tokenizer():
    """A tokenizer of 256 tokens, as many as the families' models know: without
    the three bytes that UTF-8 never has, and without merges."""
    files = files_of(TINY / "llama-bf16")
    tokenizer = json.loads(files["tokenizer.json"])
    model = tokenizer["model"]
    model["merges"] = []
    model["vocab"] = {text: one for text, one in model["vocab"].items()
                      if one < 256}
    return {"tokenizer.json": json.dumps(tokenizer).encode(),
            "tokenizer_config.json": files["tokenizer_config.json"]}


QUANTISED = ["llama-awq", "llama-gptq", "llama-int8", "llama-fp8",
             "llama-fp8-blocks"]
# Not llama-f32-linear: its heads are refused by the CPU's kernels.
PLAIN = ["llama-bf16", "llama-sharded-f16"]
FAMILY_NAMES = sorted(path.name for path in FAMILIES.iterdir()
                      if path.is_dir())


def repositories(kind):
    """Name -> files of a few tiny models of one kind."""
    if kind == "GGUF":
        return {path.stem: {path.name: path.read_bytes()}
                for path in TINY.glob("*.gguf")}
    if kind == "quantised":
        return {name: files_of(TINY / name) for name in QUANTISED}
    if kind == "GGUF families":
        return {path.stem: {path.name: path.read_bytes()}
                for path in FAMILIES.glob("*.gguf")}
    if kind == "plain":
        return {name: files_of(TINY / name) for name in PLAIN}
    half = FAMILY_NAMES[:6] if kind == "families" else FAMILY_NAMES[6:]
    return {name: files_of(FAMILIES / name) for name in half}


def remote_model(name, hub, folder, **loading):
    environment = pull_environment(folder, hub)
    return {
        "model_loading_config": {
            "model_id": name, "model_source": f"org/{name}@{COMMIT}",
            **loading},
        "accelerator_config": {"kind": "cpu"},
        "engine_kwargs": {"max_model_len": 128, "max_num_seqs": 2,
                          "kv_cache_memory_bytes": 1 << 20},
        "runtime_env": {"env_vars": {
            variable: environment[variable]
            for variable in ("HF_ENDPOINT", "HF_HOME", "NO_PROXY")}}}


@pytest.mark.parametrize("kind", ["plain", "quantised", "GGUF", "families",
                                  "more families", "GGUF families"])
def test_a_directory_of_each_kind_answers_the_openai_client(tmp_path, start,
                                                            kind):
    models = repositories(kind)
    assert len(models) > 1
    with_tokenizer = {} if "families" not in kind else {
        "tokenizer_source": "org/tokenizer"}
    hub = Hub({f"org/{name}": files for name, files
               in {**models, "tokenizer": byte_tokenizer()}.items()})
    try:
        one = start(serve_config(*(
            remote_model(name, hub, tmp_path, **with_tokenizer)
            for name in models)))
        one.wait_for_models(*models)
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key="any",
                           max_retries=0, timeout=60) as client:
            for name in models:
                answer = client.chat.completions.create(
                    model=name, max_tokens=8, seed=1,
                    messages=[{"role": "user", "content": "Hi"}])
                assert answer.usage.completion_tokens > 0, name
        for name, files in models.items():
            came = sum(asked.sent for asked in hub.requests
                       if f"org/{name}/resolve/" in asked.path)
            assert came == sum(map(len, files.values())), name
        assert one.stop() == 0
    finally:
        hub.close()


def test_encoders_of_the_hub_answer_the_openai_client(tmp_path, start):
    models = {name: {str(path.relative_to(folder)): path.read_bytes()
                     for path in folder.rglob("*") if path.is_file()}
              for folder in sorted(ENCODERS.iterdir()) if folder.is_dir()
              for name in [folder.name]}
    assert {"bert-embedding", "bert-score"} <= set(models)
    hub = Hub({f"org/{name}": files for name, files in models.items()})
    try:
        one = start(serve_config(*(
            {**remote_model(name, hub, tmp_path), "engine_kwargs": {
                "task": "score" if name.endswith("score") else "embed"}}
            for name in models)))
        one.wait_for_models(*models)
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key="any",
                           max_retries=0, timeout=60) as client:
            for name in models:
                if name.endswith("score"):
                    (score,) = client.post("/score", cast_to=object, body={
                        "model": name, "text_1": "a", "text_2": "b"})["data"]
                    assert score["score"] != 0, name
                else:
                    answer = client.embeddings.create(model=name, input=["a"])
                    assert any(answer.data[0].embedding), name
        assert one.stop() == 0
    finally:
        hub.close()
