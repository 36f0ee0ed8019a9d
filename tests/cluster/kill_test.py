"""Replicas killed in mid-stream: the client's bytes are those of an undisturbed
run, whatever was asked and whenever it happened."""

import pytest

from answers import choice_of, difference, token_ids
from cluster import wait_for
from faults import kill_at
from load import PENALTIES, chat, completion, id_of
from nodes import FAULTY_ONLY, application, kill, model

WHOLE = {"stream": False, "stream_options": None}
KINDS = {
    "sampled": completion(max_tokens=14, seed=11, temperature=1.1),
    "penalties": completion("The sea, the sea,", max_tokens=14, seed=12,
                            **PENALTIES),
    "three choices": completion("My favourite", max_tokens=14, n=3, seed=13,
                                temperature=1.2, **PENALTIES),
    "logprobs and echo": completion(
        "It was a dark and stormy night", max_tokens=13, seed=14, logprobs=3,
        echo=True, top_p=0.95),
    "long prompt": completion([(i * 37) % 40000 + 100 for i in range(400)],
                              max_tokens=13, seed=15, min_p=0.02),
    "greedy with bias": completion(
        "Two plus two is", max_tokens=13, temperature=0, min_tokens=13,
        logit_bias={"28": -4, "260": 2}, repetition_penalty=1.4),
    "chat": chat("Name three colours.", max_tokens=14, seed=16, logprobs=True,
                 top_logprobs=2, top_k=60),
    "whole chat, two choices": chat(
        "Tell me a story.", max_tokens=24, n=2, seed=17, **PENALTIES, **WHOLE),
    "whole, echo": completion("In the beginning", max_tokens=24, seed=18,
                              logprobs=2, echo=True, **WHOLE),
}
KILLS = 12  # of each kind, at least; with the stop string more than 100
LONG = 100  # tokens, of which a few are drawn before a kill comes


def with_stop(truth):
    """A stop string that the undisturbed run meets across two tokens, late."""
    path, body = completion("The old man walked", max_tokens=20, seed=19)
    text = "".join(frame["choices"][0]["text"]
                   for frame in truth(path, body).events() if frame["choices"])
    stop = next(text[at:at + 4] for at in range(len(text) * 2 // 3, len(text))
                if text.index(text[at:at + 4]) == at)
    return path, {**body, "stop": ["never said", stop]}


@pytest.fixture(params=[*KINDS, "stop string"])
def kind(request, truth, cluster):
    return KINDS.get(request.param) or with_stop(truth)


def places(answer, body):
    """Where to kill: before anything came (0), after each frame of the first
    choice, and in the middle of the others'. For a whole answer: the parts of
    its time."""
    if not answer.frames:
        return [i / KILLS for i in range(KILLS)]
    own = [at for at, frame in enumerate(answer.frames)
           if choice_of(frame) == 0]
    return [0, *(at + 1 for at in own)]


def test_a_kill_at_any_token_changes_no_byte(cluster, truth, kind):
    path, body = kind
    undisturbed = truth(*kind)
    kills = 0
    for place in places(undisturbed, body):
        answer, _ = kill_at(cluster, kind, place, undisturbed)
        kills += 1
        truth.check(answer, path, body, f"killed at {place}")
    assert kills >= KILLS


# With n the others go on; past a stop string tokens are drawn and dropped.
ACCOUNTABLE = [name for name, (_, body) in KINDS.items()
               if body["stream"] and body.get("n", 1) == 1]


@pytest.mark.parametrize("name", ACCOUNTABLE)
def test_what_has_reached_the_client_is_not_drawn_again(cluster, truth, name):
    path, body = KINDS[name]
    # A replica does not wait for its client: so long that it is not at the end.
    request = path, {**body, "max_tokens": LONG}
    undisturbed = truth(*request)
    total = sum(map(len, token_ids(undisturbed).values()))
    for place in (2, 6):
        cluster.settle()
        cluster.wait_for_reports()  # the counters are of before the kill
        before = cluster.totals()
        answer, victim = kill_at(cluster, request, place, undisturbed)
        truth.check(answer, *request, f"killed at {place}")
        seen = sum(len(choice.get("token_ids") or [])
                   for frame in answer.events()[:place]
                   for choice in frame["choices"])
        drawn, _ = wait_for(lambda: counted(cluster, before, victim, seen),
                            f"killed at {place}: nothing was resumed")
        assert drawn <= total - seen, (place, seen, drawn)


def counted(cluster, before, victim, seen):
    """Once the survivors have reported it: how many tokens they drew, and how
    many they took over."""
    now = cluster.totals()
    drawn, resumed = (
        sum(load[what] - before.get(pid, {}).get(what, 0)
            for pid, load in now.items() if pid != victim)
        for what in ("output_tokens", "resumed_tokens"))
    idle = not any(load["running"] for load in now.values())
    return (drawn, resumed) if resumed >= seen - 1 and drawn and idle else None


def test_a_stream_outlives_ten_kills(cluster, truth, chance):
    request = completion("Long ago", max_tokens=160, seed=21, **PENALTIES)
    undisturbed = truth(*request)
    at = sorted(chance.sample(range(2, 155), 10))
    work = [cluster.work()]
    victims = []

    def strike(number, answer):
        if number in at:
            victims.append(cluster.serving(work[0]))
            kill(victims[-1])
            work[0] = cluster.work_without(victims)

    answer = cluster.head.ask(*request, at_frame=strike,
                              request_id=id_of(*request))
    truth.check(answer, *request, note=f"killed at {at}")
    assert len(victims) == 10 and len(undisturbed.frames) == len(answer.frames)


# The harness proves itself


def test_the_undisturbed_answers_are_worth_comparing(cluster, truth):
    """Half of the tokens are distinct, and another seed gives others; else a
    token too many, too few or of the wrong place would go unseen."""
    for name, (path, body) in KINDS.items():
        ids = token_ids(truth(path, body))
        for choice in ids.values():
            assert len(set(choice)) * 2 >= len(choice), (name, choice)
        assert len(set(map(tuple, ids.values()))) == len(ids), name
        if body["temperature"] > 0:
            other = truth(path, {**body, "seed": body["seed"] + 1000})
            assert token_ids(other) != ids, name


def test_equal_requests_give_equal_bytes(cluster, truth):
    for request in KINDS.values():
        answer = cluster.nodes["west"].ask(*request, request_id=id_of(*request))
        truth.check(answer, *request)


WRONG = {"position": "the random position is off by one",
         "penalties": "penalties are forgotten",
         "repeat": "a token is sent again"}


@pytest.fixture(scope="module")
def wrong(also):
    """Models whose replicas resume wrongly, and one whose do it right."""
    also(application(
        [model("right", on=FAULTY_ONLY)]
        + [model(name, on=FAULTY_ONLY, env={"FAULT_RESUME": name})
           for name in WRONG], "wrong", "/wrong"))


@pytest.mark.parametrize("name", ["right", *WRONG])
def test_a_fault_in_resuming_is_seen(wrong, cluster, truth, name):
    # Greedy, a forgotten penalty is a repetition; else luck would decide.
    path, body = completion(
        "The sea, the sea,", seed=31, presence_penalty=2, frequency_penalty=2,
        max_tokens=LONG,
        temperature=0 if name == "penalties" else 1.3)
    request = "/wrong" + path, {**body, "model": name}
    undisturbed = truth(*request)
    for place in (5, 8, 11):
        answer, _ = kill_at(cluster, request, place, undisturbed, name)
        apart = difference(undisturbed, answer)
        if name == "right":
            assert not apart, apart
        else:
            assert apart, f"{WRONG[name]}, and nothing is noticed"


def test_a_wrong_random_position_is_nothing_else(wrong, cluster, truth):
    """What is drawn without chance is right at those replicas: only sampled
    streams show that fault."""
    path, body = completion(
        "The sea, the sea,", seed=31, presence_penalty=2, frequency_penalty=2,
        logprobs=3, max_tokens=24, temperature=0)
    request = "/wrong" + path, {**body, "model": "position"}
    undisturbed = truth(*request)
    for place in (5, 11):
        answer, _ = kill_at(cluster, request, place, undisturbed, "position")
        truth.check(answer, *request, note=f"killed at {place}")
