"""A cluster whose model is on a hub: replicas fetch it, once, and say so."""

import json
import re

import openai
import pytest

from cluster import ROOT, WEIGHTS, run_verb, serve_config, wait_for
from hub import COMMIT, TOKEN, Hub, pull_environment

MODEL = "org/smollm2-GGUF"
SIZE = WEIGHTS.stat().st_size


@pytest.fixture
def hub():
    one = Hub({MODEL: {"README.md": b"#", "m.Q4_1.gguf": WEIGHTS.read_bytes()}})
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
        "engine_kwargs": {"max_model_len": 512},
        "deployment_config": {"num_replicas": 2},
        "runtime_env": {"env_vars": {**variables, "HF_TOKEN": TOKEN,
                                     "HF_HUB_ENABLE_HF_TRANSFER": "1",
                                     **more}}})


def test_two_replicas_are_one_download_that_is_shown(tmp_path, hub, start):
    hub.asks_token.add(MODEL)
    hub.bytes_per_s = 16_000_000
    one = start(config(hub, tmp_path), ready=False)
    doing = wait_for(lambda: [
        replica for replica in one.model()["replicas"]
        if replica["phase"] == "loading" and replica["bytes_done"] > 0 and
        replica["reason"].startswith("fetching")], "no replica fetches")[0]
    assert doing["reason"] == f"fetching {MODEL}: m.Q4_1.gguf"
    assert doing["bytes_total"] == SIZE
    wait_for(lambda: any(
        replica["reason"].startswith("waiting for another process")
        for replica in one.model()["replicas"]), "no replica waits")
    text = run_verb("status", "-a", f"127.0.0.1:{one.admin_port}").stdout
    assert re.search(r"loading.* of 98 MB: fetching " + MODEL, text), text
    wait_for(lambda: len(one.replicas()) == 2, "not both are ready")
    assert one.chat().json()["choices"][0]["message"]["content"]
    assert hub.sent("m.Q4_1.gguf") == SIZE
    assert all(replica["reason"] == "" for replica in one.replicas())
    assert "fetch   smollm2: 2 replicas" in one.said()
    assert TOKEN not in one.said() + json.dumps(one.status()) \
        + one.admin.get("/api/config").text + one.admin.get("/metrics").text
    assert one.stop() == 0


def test_a_hub_that_is_gone_does_not_end_a_model(tmp_path, hub, start):
    assert start(config(hub, tmp_path)).stop() == 0
    hub.forget()
    offline = start(config(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert offline.chat().status_code == 200
    assert hub.requests == []
    offline.stop()
    hub.close()
    one = start(config(hub, tmp_path))
    assert one.chat().status_code == 200
    assert "using what the cache has" in one.said()


def test_a_model_that_cannot_be_fetched_says_why(tmp_path, hub, start):
    hub.gated.add(MODEL)
    one = start(config(hub, tmp_path), ready=False)
    wait_for(lambda: "accept its terms" in one.model()["reason"],
             "no reason is shown")
    assert TOKEN not in one.said() + json.dumps(one.status())


def test_deploy_shows_the_download_and_waits_for_it(tmp_path, hub):
    hub.bytes_per_s = 16_000_000
    state = tmp_path / "state"
    ports = ["--port", "0", "--http-port", "0", "--admin-port", "0"]
    said = run_verb("start", "--head", *ports, "--state-dir", state)
    assert said.returncode == 0, said.stderr
    try:
        facts = json.loads((state / "node.json").read_text())
        admin = ["-a", f"127.0.0.1:{facts['admin_port']}"]
        path = tmp_path / "serve.yaml"
        path.write_text(config(hub, tmp_path))
        said = run_verb("deploy", path, "--wait", *admin)
        assert said.returncode == 0, said.stderr
        assert f"fetching {MODEL}: m.Q4_1.gguf" in said.stdout
        assert TOKEN not in run_verb("config", *admin).stdout
        plan = run_verb("plan", path)
        assert plan.returncode == 0 and "each" in plan.stdout, plan.stdout
    finally:
        run_verb("stop", "--state-dir", state)


# -- a directory of each kind

TINY = ROOT / "tests/reference/tiny"
FAMILIES = ROOT / "tests/reference/families"


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


def test_a_directory_of_each_kind_answers_the_openai_client(tmp_path, start):
    directories = {path.name: files_of(path) for path in TINY.iterdir()
                   if path.is_dir()}
    directories |= {path.stem: {path.name: path.read_bytes()}
                    for path in TINY.glob("*.gguf")}
    families = {path.name: files_of(path) for path in FAMILIES.iterdir()
                if path.is_dir()}
    assert len(directories) > 10 and len(families) > 10
    hub = Hub({f"org/{name}": files for name, files
               in {**directories, **families,
                   "tokenizer": byte_tokenizer()}.items()})
    environment = pull_environment(tmp_path, hub)
    models = [{
        "model_loading_config": {
            "model_id": name, "model_source": f"org/{name}@{COMMIT}",
            **({"tokenizer_source": "org/tokenizer"} if name in families
               else {})},
        "accelerator_config": {"kind": "cpu"},
        "engine_kwargs": {"max_model_len": 128, "max_num_seqs": 2,
                          "kv_cache_memory_bytes": 1 << 20},
        "runtime_env": {"env_vars": {
            variable: environment[variable] for variable in (
                "HF_ENDPOINT", "HF_HOME", "NO_PROXY")}}}
        for name in {**directories, **families}]
    try:
        one = start(serve_config(*models), ready=False)
        for name in {**directories, **families}:
            wait_for(lambda: one.model(name)["status"] == "RUNNING", name)
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key="any",
                           max_retries=0, timeout=60) as client:
            for name in {**directories, **families}:
                answer = client.chat.completions.create(
                    model=name, max_tokens=8, seed=1,
                    messages=[{"role": "user", "content": "Hi"}])
                assert answer.usage.completion_tokens > 0, name
        for name, files in {**directories, **families}.items():
            for file, content in files.items():
                assert sum(asked.sent for asked in hub.requests
                           if f"org/{name}/" in asked.path
                           and asked.path.split("?")[0].endswith(file)) \
                    == len(content), (name, file)
        assert one.stop() == 0
    finally:
        hub.close()
