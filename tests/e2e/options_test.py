"""Options and files as a user gives them, seen to take effect."""

import json
import os
import re
import signal
import subprocess
import time

import httpx
import pytest

from cluster import (BINARY, DEADLINE_S, SERVING, model_config, serve_config,
                     wait_for)


def test_per_model_files_are_served(start, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.yaml").write_text(json.dumps(model_config("a")))
    config = json.loads(serve_config())
    app = config["applications"][0]
    app["args"]["llm_configs"] = ["../models/a.yaml"]
    app["import_path"] = "ray.serve.llm.builders:build_openai_app"
    cluster = start(json.dumps(config))
    answer = cluster.chat(model="a", max_tokens=2)
    assert answer.status_code == 200
    assert answer.json()["model"] == "a"


def test_the_user_is_in_the_access_log(cluster):
    assert cluster.chat(max_tokens=1, user='some"body\n7').status_code == 200
    wait_for(lambda: r'user="some\"body\n7"' in cluster.said(), "no user")


def test_health_polls_are_in_the_access_log_when_they_fail(cluster):
    for method, status in [("GET", 200), ("POST", 405)]:
        assert cluster.http.request(method, "/-/healthz").status_code == status
    wait_for(lambda: "POST /-/healthz 405" in cluster.said(), "no poll")
    assert "GET /-/healthz 200" not in cluster.said()


def test_the_host_is_the_one_that_was_asked_for(start):
    cluster = start(serve_config(model_config()), "--host", "127.0.0.2",
                    ready=False)
    url = f"http://127.0.0.2:{cluster.port}/-/healthz"
    wait_for(lambda: httpx.get(url, trust_env=False).status_code == 200,
             "not ready")
    with pytest.raises(httpx.ConnectError):
        cluster.http.get("/-/healthz")


def test_the_state_directory_may_come_from_the_environment(tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(serve_config(model_config()))
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [BINARY, "run", config, "--port", "0", "--admin-port", "0"],
            env={**os.environ, "TROUPE_STATE_DIR": str(tmp_path / "here")},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: SERVING.search(log.read_text()), "not serving")
        assert (tmp_path / "here" / "state.db").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def test_an_equal_file_is_an_equal_deployment_after_a_restart(start, tmp_path):
    config = serve_config(model_config())
    created = []
    for _ in range(2):
        cluster = start(config, state=tmp_path / "kept")
        created.append(cluster.http.get("/v1/models").json()["data"][0]["created"])
        assert "deployment 1:" in cluster.said()
        assert cluster.stop() == 0
        # An end that was asked for is no error.
        assert "this node has stopped" in cluster.said()
        assert not re.search(r"^[\d:.]+ E ", cluster.said(), re.MULTILINE)
        time.sleep(1.1)  # `created` counts seconds
    assert created[0] == created[1]


def test_what_is_installed_runs(tmp_path):
    subprocess.run(["cmake", "--install", BINARY.parent, "--prefix", tmp_path],
                   check=True, capture_output=True, timeout=DEADLINE_S)
    said = subprocess.run([tmp_path / "bin" / "troupe", "--version"], text=True,
                          capture_output=True, timeout=DEADLINE_S)
    assert said.returncode == 0
    assert said.stdout.startswith("troupe ")
