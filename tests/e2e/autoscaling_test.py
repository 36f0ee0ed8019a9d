"""The number of replicas follows the load, and no stream notices."""

import json
import threading

import httpx
import pytest

from cluster import DEADLINE_S, chunks, model_config, serve_config, wait_for

# Every answer is as long as asked for, and the same each time.
BODY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 40,
        "ignore_eos": True, "stream": True}


def scaled(**scaling):
    return serve_config(model_config(
        engine_kwargs={"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20},
        deployment_config={
            "graceful_shutdown_timeout_s": 20,
            "autoscaling_config": {"target_ongoing_requests": 2,
                                   "downscale_delay_s": 2, **scaling}}),
        troupe={"threads_per_replica": 1})


class Clients:
    """So many that each ask again once they are answered, until the block
    ends."""

    def __init__(self, cluster, count):
        self.cluster = cluster
        self.answers, self.errors = [], []
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.ask_on)
                        for _ in range(count)]

    def ask_on(self):
        with httpx.Client(base_url=self.cluster.url, timeout=DEADLINE_S,
                          trust_env=False) as http:
            while not self.is_over.is_set():
                try:
                    answer = http.post("/v1/completions", json=BODY)
                    assert answer.status_code == 200, answer.text
                    frames = chunks(answer.text)
                    assert not any("error" in frame for frame in frames), frames
                    self.answers.append("".join(
                        choice["text"] for frame in frames
                        for choice in frame["choices"]))
                except (AssertionError, httpx.HTTPError) as fault:
                    self.errors.append(repr(fault))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


def wait_for_replicas(cluster, count):
    wait_for(lambda: len(cluster.replicas()) == count
             and cluster.model()["replicas_wanted"] == count,
             f"not {count} replicas: {json.dumps(cluster.model())}")


def test_up_with_the_load_and_down_again_without_an_error(start):
    cluster = start(scaled(min_replicas=1, max_replicas=3))
    assert len(cluster.replicas()) == 1
    scaling = cluster.model()["scaling"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 3)
    with Clients(cluster, 8) as clients:
        wait_for_replicas(cluster, 3)
        scaling = cluster.model()["scaling"]
        assert scaling["last_change"].startswith("up "), scaling
        assert "replicas of 2" in scaling["last_change"], scaling
        # Eight over two are four.
        wait_for(lambda: "max_replicas 3: 4 wanted"
                 in cluster.model()["scaling"]["held_back"], "not held back")
        done = len(clients.answers)
        wait_for(lambda: len(clients.answers) > done + 8, "no answers")
    wait_for_replicas(cluster, 1)
    assert cluster.model()["scaling"]["last_change"].startswith("down ")
    assert clients.errors == []
    assert len(set(clients.answers)) == 1, "scaling changed an answer"


def test_down_with_streams_under_way_moves_or_finishes_them(start):
    cluster = start(scaled(min_replicas=1, initial_replicas=3, max_replicas=3,
                           downscale_delay_s=0))
    # Two streams are one replica's load: the two others go while they run.
    with Clients(cluster, 2) as clients:
        wait_for_replicas(cluster, 1)
        done = len(clients.answers)
        wait_for(lambda: len(clients.answers) > done + 2, "no answers")
    assert clients.errors == []
    assert len(set(clients.answers)) == 1


def test_to_zero_and_back_for_many_callers_at_once(start):
    cluster = start(scaled(min_replicas=0, max_replicas=1,
                           downscale_to_zero_delay_s=1.5), ready=False)
    wait_for(lambda: cluster.model()["status"] == "RUNNING", "not deployed")
    assert cluster.replicas() == []
    assert cluster.http.get("/-/healthz").status_code == 200
    with Clients(cluster, 6) as clients:
        wait_for(lambda: len(clients.answers) > 6, "nobody was answered")
        (replica,) = cluster.replicas()
        assert replica["restarts"] == 0
    assert clients.errors == []
    assert len(set(clients.answers)) == 1
    wait_for_replicas(cluster, 0)
    again = cluster.http.post("/v1/completions", json={**BODY, "stream": False})
    assert again.status_code == 200, again.text
    assert again.json()["choices"][0]["text"] == clients.answers[0]


def test_a_deployment_again_keeps_what_the_load_made(start, tmp_path):
    """A change of the bounds cuts the target, and the same file changes
    nothing."""
    cluster = start(scaled(min_replicas=1, max_replicas=3,
                           downscale_delay_s=600))

    def deploy(config):
        answer = cluster.admin.put("/api/serve/applications/",
                                   content=config)
        assert answer.status_code == 200, answer.text

    with Clients(cluster, 8):
        wait_for_replicas(cluster, 3)
    deploy(scaled(min_replicas=1, max_replicas=3, downscale_delay_s=600))
    assert cluster.model()["replicas_wanted"] == 3
    deploy(scaled(min_replicas=1, max_replicas=2, downscale_delay_s=600))
    wait_for_replicas(cluster, 2)


@pytest.mark.parametrize("given, word", [
    ({"policy": "my.module:scale"}, "runs no Python"),
    ({"policy": "made_up"}, "is no policy")])
def test_a_policy_that_is_none_is_refused_by_name(tmp_path, given, word):
    from cluster import run_verb
    file = tmp_path / "serve.yaml"
    file.write_text(scaled(**given))
    said = run_verb("validate", file)
    assert said.returncode != 0
    assert word in said.stdout + said.stderr
    assert "ongoing_requests" in said.stdout + said.stderr


def test_a_scaler_outside_sets_the_number(start):
    config = json.loads(serve_config(
        model_config(engine_kwargs={"max_model_len": 512,
                                    "kv_cache_memory_bytes": 64 << 20}),
        model_config("fixed", deployment_config={"num_replicas": 1})))
    application, = config["applications"]
    application["external_scaler_enabled"] = True
    other = {**application, "name": "other", "route_prefix": "/other"}
    del other["external_scaler_enabled"]
    application["args"] = {"llm_configs": [
        application["args"]["llm_configs"][0]]}
    other["args"] = {"llm_configs": [other["args"]["llm_configs"][1]]}
    config["applications"] = [application, other]
    cluster = start(json.dumps(config))

    def scale(path, body):
        return cluster.admin.post(f"/api/v1/applications/{path}/scale",
                                  json=body)

    answer = scale("llm/deployments/smollm2", {"target_num_replicas": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json()["target_num_replicas"] == 2
    wait_for_replicas(cluster, 2)
    # Ray's answers where it may not.
    assert scale("other/deployments/fixed",
                 {"target_num_replicas": 2}).status_code == 412
    for path in ("llm/deployments/unknown", "unknown/deployments/smollm2",
                 "llm"):
        assert scale(path, {"target_num_replicas": 2}).status_code == 404, path
    for body in ({}, [], {"target_num_replicas": -1},
                 {"target_num_replicas": "2"}, {"target_num_replicas": 4097},
                 {"target_num_replicas": 2, "more": 1}):
        answer = scale("llm/deployments/smollm2", body)
        assert answer.status_code == 400, answer.text
    assert len(cluster.replicas()) == 2
