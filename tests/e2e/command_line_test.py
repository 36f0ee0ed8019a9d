"""The verbs, as a user types them, and the admin side."""

import json
import re
import subprocess

import pytest

from cluster import (BINARY, ROOT, WEIGHTS, model_config, run_verb,
                     serve_config)


def validate(folder, text):
    path = folder / "serve.yaml"
    path.write_text(text)
    return run_verb("validate", path)


def test_help_and_version_are_there():
    assert "0.1.0" in run_verb("--version").stdout
    for verb in ("run", "start", "stop", "deploy", "config", "delete",
                 "shutdown", "status", "plan", "pull", "validate", "inspect",
                 "node", "token", "chat", "bench"):
        assert verb in run_verb("--help").stdout
        help_ = run_verb(verb, "--help")
        assert help_.returncode == 0
        assert "Example" in help_.stdout


def test_the_program_needs_no_library_of_cuda():
    """One binary for machines with a GPU and without."""
    needed = subprocess.run(["readelf", "-d", BINARY], check=True, text=True,
                            capture_output=True).stdout
    assert "libc.so" in needed
    assert not re.search("cuda|cublas|nccl|nvidia|nvrtc", needed, re.I)


@pytest.mark.parametrize("line, verb, words", [
    ("run x.yaml --prot 1", " run", "unknown option --prot; did you mean "
     "--port?"),
    ("run x.yaml --frob=1", " run", "unknown option --frob"),
    ("deploy --wiat", " deploy", "unknown option --wiat; did you mean "
     "--wait?"),
    ("--prot status", "", "unknown option --prot"),
    ("deploy", " deploy", "config is required"),
    ("deplyo x.yaml", "", "unknown verb deplyo; did you mean deploy?"),
    ("frobnicate", "", "unknown verb frobnicate"),
    ("replic", "", "unknown verb replic"),  # that one is not for users
    ("status all", " status", "unexpected argument all"),
    ("node revok x", " node", "unknown verb revok; did you mean revoke?"),
    ("node", " node", "a verb is missing: revoke"),
    ("", "", "a verb is missing: run, start, stop, deploy, config, delete, "
     "shutdown, status, plan, pull, validate, inspect, node, token, chat, "
     "bench"),
    ("start --head --memory 4GiB", " start",
     "--memory: 4GiB is no number of bytes; 4 GiB are 4294967296"),
    ("chat --max-tokens 2147483648", " chat",
     "--max-tokens: Value 2147483648 not in range 1 to 2147483647"),
    ("inspect x --kv-cache-memory-bytes 1G", " inspect",
     "--kv-cache-memory-bytes: 1G is no number of bytes; 4 GiB are "
     "4294967296")])
def test_a_wrong_command_line_is_answered_in_two_lines(line, verb, words):
    said = run_verb(*line.split())
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines() == [
        f"troupe{verb}: {words}",
        f"`troupe{verb} --help` shows what there is."]


def test_start_says_what_is_missing(tmp_path):
    for arguments, word in [
            ([], "--head"), (["--address", "nowhere"], "HOST:PORT"),
            (["--head", "--node-ip-address", "0.0.0.0"], "0.0.0.0"),
            (["--head", "--node-ip-address", "localhost"],
             "--node-ip-address: cannot listen on \"localhost\""),
            (["--address", "127.0.0.1:1", "--token-file", tmp_path / "none"],
             "--token-file"),
            (["--address", "127.0.0.1:1", "--token-file", "/dev/null"],
             "--token-file: /dev/null"),
            (["--head", "--resources", "{"], "--resources"),
            (["--address", "127.0.0.1:1"], "token"),
            (["--address", "127.0.0.1:1", "--token", "x"], "token"),
            (["--head", "--address", "127.0.0.1:1"], "--head")]:
        for more in ([], ["--block"]):
            said = run_verb("start", *arguments, *more, "--state-dir",
                            tmp_path / "state")
            text = said.stdout + said.stderr
            assert said.returncode == 2, (arguments, text)
            assert word in text, (arguments, text)
    assert not (tmp_path / "state" / "node.json").exists()


def test_a_head_in_the_background_is_deployed_to_and_stopped(tmp_path):
    state = tmp_path / "state"
    ports = ["--port", "0", "--http-port", "0", "--admin-port", "0"]
    said = run_verb("start", "--head", *ports, "--state-dir", state)
    assert said.returncode == 0, said.stderr
    try:
        assert "node head is up: http http://127.0.0.1:" in said.stdout
        assert "--token troupe1." in said.stdout
        facts = json.loads((state / "node.json").read_text())
        assert facts["node"] == facts["role"] == "head"
        admin = ["-a", f"http://localhost:{facts['admin_port']}"]
        again = run_verb("start", "--head", *ports, "--state-dir", state)
        assert again.returncode == 1 and "another node" in again.stderr
        path = tmp_path / "serve.yaml"
        path.write_text(serve_config(model_config(), http_options={
            "port": 9000}, troupe={"api_keys": ["sk-not-for-eyes"]}))
        done = run_verb("deploy", path, "--wait", *admin)
        assert done.returncode == 0, done.stderr
        assert "http_options.port: cannot change while" in done.stderr
        assert "RUNNING" in run_verb("status", *admin).stdout
        shown = run_verb("config", *admin).stdout
        assert "smollm2" in shown and "sk-not-for-eyes" not in shown
        assert run_verb("delete", "nobody", *admin).returncode == 1
        assert run_verb("shutdown", "-y", *admin).returncode == 0
        whole = json.loads(run_verb("status", "--json", *admin).stdout)
        assert whole["models"] == []
    finally:
        stopped = run_verb("stop", "--state-dir", state)
    assert stopped.returncode == 0, stopped.stderr
    assert not (state / "node.json").exists()
    assert run_verb("stop", "--state-dir", state).returncode == 1


def test_deploy_names_all_models_that_fail(tmp_path):
    """It waits for those that are being started, not for one without a node."""
    def broken(name, tries):
        path = tmp_path / f"{name}.gguf"
        path.write_text("nothing")
        return {**model_config(name, deployment_config={
            "max_constructor_retry_count": tries}), "model_loading_config": {
                "model_id": name, "model_source": str(path)}}
    path = tmp_path / "serve.yaml"
    path.write_text(serve_config(
        broken("soon", 1), model_config("good"), broken("late", 3),
        model_config("nowhere", deployment_config={
            "ray_actor_options": {"num_cpus": 4000}})))
    state = tmp_path / "state"
    ports = ["--port", "0", "--http-port", "0", "--admin-port", "0"]
    said = run_verb("start", "--head", *ports, "--state-dir", state)
    assert said.returncode == 0, said.stderr
    try:
        facts = json.loads((state / "node.json").read_text())
        done = run_verb("deploy", path, "--wait", "-a",
                        f"127.0.0.1:{facts['admin_port']}")
    finally:
        run_verb("stop", "--state-dir", state)
    assert done.returncode == 1, done.stderr
    said = [line.split(": ") for line in done.stderr.splitlines()]
    assert {name: how for name, how, *_ in said} == {
        "llm/soon": "DEPLOY_FAILED", "llm/late": "DEPLOY_FAILED",
        "llm/nowhere": "PENDING"}, done.stderr
    assert len(said) == 3
    assert "soon.gguf" in done.stderr and "late.gguf" in done.stderr
    assert "all models run" not in done.stdout


def test_plan_gives_the_allocators_own_sizes(cluster, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(serve_config(
        model_config(engine_kwargs={"max_model_len": 512,
                                    "kv_cache_memory_bytes": 64 << 20}),
        model_config("gpu", accelerator_config={"kind": "gpu"}),
        model_config("many", deployment_config={
            "num_replicas": 2, "ray_actor_options": {"num_cpus": 4000}})))
    said = run_verb("plan", path)
    assert said.returncode == 0, said.stderr
    assert "here: 1 replica, each" in said.stdout
    assert "(2912 tokens)" in said.stdout  # 64 MiB in blocks of 16
    assert "no room for 1 of 1 replicas" in said.stdout
    assert "no room for 2 of 2 replicas" in said.stdout


def test_plan_names_the_line_of_a_model_that_it_refuses(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(serve_config(
        model_config(), model_config("nine-heads", engine_kwargs={
            "tensor_parallel_size": 2})))
    _, line = [at for at, text in enumerate(path.read_text().splitlines(), 1)
               if text == "     {"]
    said = run_verb("validate", path)
    assert said.returncode == 0 and f"troupe plan {path}" in said.stdout
    said = run_verb("plan", path)
    assert said.returncode == 1, said.stderr
    (error,) = [one for one in said.stdout.splitlines() if "error: " in one]
    assert error == (f"  {path}:{line}:6: error: tensor_parallel_size: the "
                     "model's 9 heads cannot be divided by 2")


def test_the_examples_are_valid():
    files = sorted((ROOT / "cluster-configs").glob("*.yaml"))
    assert files
    for path in files:
        said = run_verb("validate", path)
        assert said.returncode == 0, said.stdout + said.stderr


def test_validate_finds_everything_in_one_pass(tmp_path):
    said = validate(tmp_path, f"""\
applications:
  - name: llm
    import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - model_loading_config:
            model_id: smollm2
            model_sorce: {WEIGHTS}
          deployment_config:
            num_replicas: many
          lora_config:
            max_num_adapters_per_replica: 4
http_options:
  port: 70000
""")
    text = said.stdout + said.stderr
    assert said.returncode != 0
    *errors, count = text.splitlines()
    assert count == f"{len(errors)} errors" and len(errors) >= 4
    assert all(re.search(r"serve.yaml:\d+:\d+: \w", line)
               for line in errors), text
    for place, words in [(":8:", ("model_sorce", "model_source")),
                         (":10:", ("num_replicas",)),
                         (":12:", ("lora_config", "not supported yet")),
                         (":14:", ("port", "65535"))]:
        lines = [line for line in text.splitlines()
                 if f"serve.yaml{place}" in line]
        assert lines, (place, text)
        assert all(any(word in line for line in lines) for word in words), text


def test_validate_compiles_chat_templates(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages }}\n{{ x | nothing }}")
    said = validate(tmp_path, serve_config(model_config(engine_kwargs={
        "chat_template": "chat.jinja"})))
    assert said.returncode == 2
    assert re.search(r"serve.yaml:\d+:\d+: .*engine_kwargs.chat_template.*"
                     r"line 2: unknown filter \"nothing\"", said.stderr), said


def test_run_refuses_what_validate_refuses(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("applications: 5\n")
    said = run_verb("run", path, "--state-dir", tmp_path / "state")
    assert said.returncode == 2
    assert "serve.yaml:1:" in said.stderr


def test_notes_are_for_files_that_are_not_refused(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(serve_config(
        model_config(engine_kwargs={"trust_remote_code": True, "seed": -1})))
    for verb in "validate", "plan", "deploy", "run":
        said = run_verb(verb, path)
        assert said.returncode == 2
        error, count = said.stderr.splitlines()
        assert "engine_kwargs.seed: must be" in error
        assert count == "1 error"
    path.write_text(serve_config(
        model_config(engine_kwargs={"trust_remote_code": True})))
    said = run_verb("validate", path)
    assert said.returncode == 0
    assert "note: " in said.stderr and "error" not in said.stderr


def test_sources_of_other_kinds_are_refused_by_name(tmp_path):
    for source in ("http://host/model", "abfss://container@account/model",
                   "azure://container/model"):
        config = model_config()
        config["model_loading_config"]["model_source"] = source
        said = validate(tmp_path, serve_config(config))
        assert said.returncode != 0
        assert "model_source" in said.stdout + said.stderr
        assert source.split(":")[0].split("/")[0] in said.stdout + said.stderr


def test_per_model_files_are_relative_to_the_file(tmp_path, start):
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.yaml").write_text(json.dumps(model_config("a")))
    config = json.loads(serve_config())
    config["applications"][0]["args"]["llm_configs"] = [str(
        models.relative_to(tmp_path) / "a.yaml")]
    config["applications"][0]["import_path"] = (
        "ray.serve.llm.builders:build_openai_app")
    said = validate(tmp_path, json.dumps(config))
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_port_that_is_taken_is_named(cluster, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(serve_config(model_config()))
    said = run_verb("run", path, "--port", cluster.port, "--admin-port", "0",
                    "--state-dir", tmp_path / "state")
    assert said.returncode == 1
    assert str(cluster.port) in said.stderr


def test_status_shows_nodes_models_and_replicas(cluster):
    cluster.chat()
    said = run_verb("status", "--admin-port", cluster.admin_port)
    assert said.returncode == 0, said.stderr
    for word in ("smollm2", "RUNNING", "ready"):
        assert word in said.stdout
    whole = json.loads(run_verb("status", "--admin-port", cluster.admin_port,
                                "--json").stdout)
    (model,) = whole["models"]
    assert model["replicas_ready"] == model["replicas_wanted"] == 1
    assert whole["nodes"][0]["cpus"] > 0


def test_status_without_a_cluster_says_so():
    said = run_verb("status", "--admin-port", "1")
    assert said.returncode != 0
    assert "127.0.0.1:1" in said.stderr


def test_routes_are_on_the_admin_side_only(cluster):
    assert cluster.admin.get("/-/routes").json() == {"/": "llm"}
    for path in ("/-/routes", "/metrics", "/api/status"):
        assert cluster.http.get(path).status_code == 404


def test_the_admin_side_refuses_foreign_pages(cluster):
    for headers in ({"Origin": "http://a.example"}, {"Host": "a.example"}):
        assert cluster.admin.get("/api/status",
                                 headers=headers).status_code == 403


def test_metrics_tell_of_the_node_what_the_status_does(cluster):
    (node,) = cluster.status()["nodes"]
    found = cluster.metrics()
    assert node["alive"] and found["troupe_node_up"] == 1
    for name, resource in [("cpus", "CPU"), ("gpus", "GPU")]:
        assert found[f"troupe_node_{name}"] == node["resources"].get(
            resource, 0)
        assert found[f"troupe_node_{name}_used"] == node["used"].get(
            resource, 0)
    # Bytes are rounded in the status.
    assert found["troupe_node_memory_bytes"] == pytest.approx(
        node["resources"]["memory"]) and node["resources"]["memory"] > 0
    assert found["troupe_node_memory_used_bytes"] == pytest.approx(
        node["used"].get("memory", 0))


def test_metrics_count_what_happened(cluster):
    before = cluster.metrics()
    prompt = "Nobody asked this before: how many metrics are there?"
    cluster.complete(prompt, max_tokens=7, ignore_eos=True)
    cluster.complete(temperature=9)
    after = cluster.metrics()

    def grew(name):
        return after[name] - before.get(name, 0)
    assert grew("ray_serve_num_http_requests") == 2
    assert grew("ray_serve_num_http_error_requests") == 1
    assert grew("ray_vllm_generation_tokens_total") == 7
    assert grew("ray_vllm_prompt_tokens_total") > 7
    assert grew("ray_vllm_request_success_total") == 1
    for histogram in ("time_to_first_token_seconds",
                      "time_per_output_token_seconds",
                      "e2e_request_latency_seconds"):
        assert grew(f"ray_vllm_{histogram}_count") == 1
        assert grew(f"ray_vllm_{histogram}_sum") > 0
    for gauge in ("ray_vllm_num_requests_running",
                  "ray_vllm_num_requests_waiting",
                  "ray_vllm_kv_cache_usage_perc",
                  "troupe_requests_in_flight"):
        assert gauge in after
