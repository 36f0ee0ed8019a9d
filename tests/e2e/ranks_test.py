"""A replica that is several processes (tensor_parallel_size)."""

import concurrent.futures
import os
import signal

import pytest

from cluster import model_config, serve_config, wait_for

# SmolLM2 has nine heads: three ranks have three each.
RANKS = 3


def config(**deployment):
    return serve_config(model_config(
        engine_kwargs={"max_model_len": 2048, "tensor_parallel_size": RANKS},
        deployment_config=deployment))


def ranks_of(cluster):
    """The replica's processes, the first of them first."""
    (replica,) = cluster.replicas()
    others = [one for one in cluster.family()
              if one.pid not in (cluster.process.pid, replica["pid"])]
    return [one for one in cluster.family()
            if one.pid == replica["pid"]] + others


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    from cluster import Cluster
    from conftest import running
    with running(Cluster(tmp_path_factory.mktemp("ranks"), config())) as one:
        yield one


def best_of(cluster, prompt):
    """Logarithms of the probabilities of what may come next."""
    answer = cluster.complete(prompt, max_tokens=1, logprobs=5).json()
    return answer["choices"][0]["logprobs"]["top_logprobs"][0]


def test_three_processes_say_what_one_says(three, cluster):
    assert len(ranks_of(three)) == RANKS
    (replica,) = three.replicas()
    assert "3 ranks" in replica["device"]
    # Both round what they multiply by, each in its own places.
    for prompt in ("Once upon a time", "The capital of France is", "1, 2, 3,"):
        ours, theirs = best_of(three, prompt), best_of(cluster, prompt)
        assert len(ours.keys() & theirs.keys()) >= 3
        for token in ours.keys() & theirs.keys():
            assert ours[token] == pytest.approx(theirs[token], abs=0.5)


def test_a_row_alone_is_that_row_in_a_batch(three):
    prompts = [f"Number {i} of the list is" for i in range(6)]

    def ask(prompt):
        answer = three.complete(prompt, max_tokens=12, logprobs=1).json()
        return answer["choices"][0]["text"], answer["choices"][0]["logprobs"]

    alone = [ask(prompt) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(ask, prompts))
    assert together == alone


LONG = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 90,
        "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def whole(three):
    return three.stream_with(LONG, lambda: None)


@pytest.mark.parametrize("which", [0, 2])
def test_the_end_of_one_is_the_end_of_all_and_of_no_stream(three, whole, which):
    before = ranks_of(three)

    def kill():
        os.kill(before[which].pid, signal.SIGKILL)

    assert three.stream_with(LONG, kill) == whole
    wait_for(lambda: not any(one.lives() for one in before), "one is left")
    assert "goes on at" in three.said()
    after = ranks_of(three)
    assert len(after) == RANKS
    assert not {one.pid for one in after} & {one.pid for one in before}


def test_a_rank_that_hangs_is_ended_and_the_stream_goes_on(start, whole):
    cluster = start(config(health_check_period_s=0.5))
    before = ranks_of(cluster)

    def stop():
        os.kill(before[2].pid, signal.SIGSTOP)

    assert cluster.stream_with(LONG, stop) == whole
    assert not any(one.lives() for one in before)
    assert "it made no step while requests were running" in cluster.said()


def test_what_cannot_be_divided_is_said_by_name(start):
    broken = serve_config(model_config(
        engine_kwargs={"tensor_parallel_size": 2}))
    cluster = start(broken, ready=False)
    reason = "tensor_parallel_size: the model's 9 heads cannot be divided by 2"
    wait_for(lambda: reason in cluster.said(), "it does not say why")
    model = cluster.model()
    assert reason in str(model)
    # It would be so the next time.
    assert model["status"] == "DEPLOY_FAILED"
    assert model["replicas"][0]["restarts"] == 0
    # One of the ranks says it, for all.
    assert cluster.stop() == 0
    assert cluster.said().count("not started again") == 1
    assert "rank 0 could not load" not in cluster.said()
