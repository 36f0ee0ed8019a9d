"""What cannot be served is refused at once; who floods is not served alone."""

import threading
import time

import httpx
import openai
import pytest

from cluster import Cluster, DEADLINE_S, model_config, serve_config, wait_for

KEYS = [{"key": "sk-team-a-key", "name": "a"},
        {"key": "sk-team-b-key", "name": "b", "priority": -5},
        {"key": "sk-limited-key", "name": "limited",
         "requests_per_minute": 4, "tokens_per_minute": 200},
        {"key": "sk-bounded-key", "name": "bounded", "choices_per_replica": 1}]


def narrow(**top):
    """One replica that computes two choices at a time."""
    return serve_config(model_config(engine_kwargs={
        "max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20,
        "max_num_seqs": 2}), **top)


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("busy"),
                      narrow(troupe={"api_keys": KEYS}))
    yield cluster.start()
    cluster.stop()


def ask(cluster, key="a", tokens=20, headers=None, **more):
    keys = {one["name"]: one["key"] for one in KEYS}
    return cluster.http.post("/v1/completions", json={
        "prompt": "Once upon a time", "temperature": 0, "max_tokens": tokens,
        "ignore_eos": True, **more},
        headers={"authorization": f"Bearer {keys[key]}", **(headers or {})})


class Flood:
    """So many answers of one key, all asked for at once."""

    def __init__(self, cluster, key, count, tokens, **more):
        self.answers = []
        self.ended_at = []
        self.threads = [threading.Thread(target=self.one, args=(
            cluster, key, tokens, more)) for _ in range(count)]

    def one(self, cluster, key, tokens, more):
        answer = ask(cluster, key, tokens, **more)
        self.answers.append(answer.status_code)
        self.ended_at.append(time.monotonic())

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join()


def waiting(cluster):
    return gauge(cluster, "ray_serve_deployment_queued_queries")


def gauge(cluster, name):
    text = cluster.admin.get("/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith((name + " ", name + "{")))


def test_a_limit_is_kept_and_told_as_openai_does(busy):
    first = ask(busy, "limited", 5)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "4"
    assert first.headers["x-ratelimit-remaining-requests"] == "3"
    assert first.headers["x-ratelimit-limit-tokens"] == "200"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 200
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    long = ask(busy, "limited", 5, prompt="word " * 300)
    assert long.status_code == 429
    error = long.json()["error"]
    assert error["type"] == "tokens" and error["code"] == "rate_limit_exceeded"
    assert "retry-after" not in long.headers  # it would never fit
    with busy.http.stream("POST", "/v1/completions", json={
            "prompt": "Hi", "max_tokens": 2, "stream": True},
            headers={"authorization": "Bearer sk-limited-key"}) as stream:
        assert "x-ratelimit-remaining-requests" in stream.headers
        stream.read()
    client = openai.OpenAI(base_url=f"{busy.url}/v1", api_key="sk-limited-key",
                           max_retries=0, http_client=httpx.Client(
                               trust_env=False, timeout=DEADLINE_S))
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(3):
            client.completions.create(model="smollm2", prompt="Hi", max_tokens=2)
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    # Nobody else's limit is touched.
    other = ask(busy, "a", 2)
    assert other.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in other.headers)
    metrics = busy.admin.get("/metrics").text
    assert 'troupe_tenant_requests_refused_total{tenant="limited"}' in metrics
    assert "sk-limited-key" not in metrics


def test_a_flood_of_one_key_leaves_another_its_turn(busy):
    with Flood(busy, "a", 28, 30) as flood:
        wait_for(lambda: waiting(busy) > 8, "no queue")
        for _ in range(3):
            assert ask(busy, "b", 5, priority=0).status_code == 200
        assert waiting(busy) > 0, "the other one waited for the whole flood"
    assert flood.answers == [200] * 28


def test_a_key_has_no_more_seats_than_it_may_have(busy):
    with Flood(busy, "bounded", 3, 400) as flood:
        wait_for(lambda: waiting(busy) == 2, "all of its choices were sent")
        assert ask(busy, tokens=5).status_code == 200
        assert waiting(busy) == 2 and not flood.answers
    assert flood.answers == [200] * 3


def test_the_urgent_go_first_as_far_as_their_key_may(busy):
    with Flood(busy, "a", 12, 30):
        wait_for(lambda: waiting(busy) > 6, "no queue")
        with Flood(busy, "a", 1, 5, priority=-5) as same, \
                Flood(busy, "b", 1, 5, priority=-5) as urgent:
            pass
        # "a" may not ask for it: it had to wait like its others.
        assert urgent.ended_at[0] < same.ended_at[0]
        assert same.answers == urgent.answers == [200]
    refused = ask(busy, "a", priority=1001)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "priority"


def test_what_cannot_be_served_in_time_is_refused(busy):
    late = gauge(busy, "troupe_router_requests_late_total")
    with Flood(busy, "a", 40, 80) as flood:
        wait_for(lambda: waiting(busy) > 30, "no queue")
        # As soon as somebody knows how fast the queue is served.
        wait_for(lambda: len(flood.answers) >= 6, "nobody is served")
        answer = ask(busy, "a", 60, headers={"x-request-timeout-ms": "500"})
        assert answer.status_code == 503
        assert "time limit of" in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        answer = ask(busy, "a", 60, timeout=0.5)
        assert answer.status_code in (503, 408)
    assert flood.answers == [200] * 40, "the others have what they had"
    assert gauge(busy, "troupe_router_requests_late_total") > late
    # With nobody before it the same is served.
    assert ask(busy, "a", 5, timeout=30).status_code == 200


def test_a_time_limit_ends_an_answer_and_its_work(busy):
    answer = ask(busy, "a", 900, headers={"x-request-timeout-ms": "150"})
    assert answer.status_code in (408, 503)
    wait_for(lambda: gauge(busy, "ray_serve_num_ongoing_requests_at_replicas")
             == 0, "it is still computed")


@pytest.mark.parametrize("value", ["0", "-5", "1e3", "soon", "86400001"])
def test_a_time_limit_that_is_none_is_refused(busy, value):
    answer = ask(busy, "a", headers={"x-request-timeout-ms": value})
    assert answer.status_code == 400
    assert "x-request-timeout-ms" in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", [0, -1, "x", 1e9, []])
def test_a_timeout_in_the_body_that_is_none_is_refused(busy, value):
    answer = ask(busy, "a", timeout=value)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "timeout"


def test_the_queue_of_a_model_is_bounded(start):
    cluster = start(serve_config(model_config(
        engine_kwargs={"max_model_len": 1024, "max_num_seqs": 1,
                       "kv_cache_memory_bytes": 64 << 20},
        deployment_config={"max_queued_requests": 3})))

    def one():
        answer = cluster.complete(max_tokens=30, ignore_eos=True)
        return answer.status_code, answer.headers.get("retry-after")

    answers = []
    threads = [threading.Thread(target=lambda: answers.append(one()))
               for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = [code for code, _ in answers if code == 200]
    refused = [after for code, after in answers if code == 503]
    assert len(served) + len(refused) == 20
    assert len(served) >= 5 and refused and all(refused)
