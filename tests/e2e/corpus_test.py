"""Replays recorded requests and compares with what Ray Serve LLM answered.

The rule: the same status, and every key of OpenAI's description that the
recorded answer has, with the same type; exceptions are listed here.
"""

import json
import os
import pathlib

import pytest

from cluster import ROOT, sse

SHARED = pathlib.Path(os.environ.get("TROUPE_SHARED", ROOT.parent / "shared"))
WIRE = SHARED / "reference/wire"

# Where we answer otherwise than Ray Serve LLM, and why.
OTHER_STATUS = {
    # Greedy choices are equal, not forbidden (OpenAI).
    "chat.n2_greedy": 200,
    # Ray answers 500, or the last of doubled keys counts.
    "http.wrong_content_type": 415,
    "http.no_content_type": 415,
    "http.bad_utf8_escape": 400,
    "http.duplicate_keys": 400,
    "chat.model_adapter": 404,
    # Not supported yet, and said so.
    "chat.json_schema": 400,
    "chat.json_schema_stream": 400,
    "chat.json_object": 400,
    "chat.structured_regex": 400,
    "chat.structured_choice": 400,
    "comp.prompt_logprobs": 400,
    "comp.best_of": 400,
    # As vLLM itself answers; Ray's ingress refuses them.
    "tokenize": 200, "tokenize.strs": 200, "tokenize.chat": 200,
    "detokenize": 200,
    # Routes that are not there yet.
    "get.openapi": 404, "get.docs": 404,
    # On the admin listener.
    "get.routes": 404,
    # No other origin's page is told that it may come in.
    "http.options_chat": 405,
}

# OpenAI's keys, by the object that holds them.
OPENAI_KEYS = {
    "id", "object", "created", "model", "choices", "usage", "data",
    "system_fingerprint", "owned_by",
    "index", "message", "delta", "text", "logprobs", "finish_reason",
    "role", "content", "refusal",
    "prompt_tokens", "completion_tokens", "total_tokens",
    "token", "logprob", "bytes", "top_logprobs",
    "text_offset", "token_logprobs", "tokens",
}
BY_TOKEN = {"top_logprobs"}  # in completions: maps with tokens for keys


def recorded(name):
    path = WIRE / name
    if not path.exists():
        return None
    return {one["id"]: one for one in map(json.loads, path.open())}


REQUESTS, ANSWERS = recorded("requests.jsonl"), recorded("ray-serve-llm.jsonl")


def test_the_recordings_are_there():
    assert REQUESTS and ANSWERS, (
        f"no recordings under {WIRE}; TROUPE_SHARED names their folder")
    assert len(REQUESTS) == len(ANSWERS) == 151


def kind(value):
    return {bool: "bool", int: "number", float: "number", str: "text",
            dict: "object", list: "list", type(None): "null"}[type(value)]


def differences(theirs, ours, path=""):
    """Keys of OpenAI that theirs has and ours has not, or of another type."""
    if theirs is None or (ours is None and path.endswith("finish_reason")):
        return
    if kind(theirs) != kind(ours):
        yield f"{path}: {kind(ours)}, not {kind(theirs)}"
    elif isinstance(theirs, dict):
        for key, value in theirs.items():
            if key not in OPENAI_KEYS:
                continue
            if key not in ours:
                yield f"{path}.{key} is missing"
            else:
                yield from differences(value, ours[key], f"{path}.{key}")
    elif isinstance(theirs, list):
        last = path.split(".")[-1]
        for number, (one, other) in enumerate(zip(theirs, ours)):
            if last in BY_TOKEN and isinstance(one, dict) and "token" not in one:
                assert other is None or all(
                    isinstance(value, float) for value in other.values())
            else:
                yield from differences(one, other, f"{path}[{number}]")


def send(cluster, request):
    body = request.get("raw")
    if body is None and "body" in request:
        body = json.dumps(request["body"])
    return cluster.http.request(
        request["method"], request["path"].replace("$MODEL", "smollm2"),
        headers=request["headers"],
        content=None if body is None else body.replace("$MODEL", "smollm2"))


def check_error(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    for key in ("param", "code"):
        assert error[key] is None or isinstance(error[key], str)
    for internal in ("Traceback", ".cpp", "0x", "std::", "boost", "/work"):
        assert internal not in answer.text


def frames_of(theirs):
    return [json.loads(frame.removeprefix("data: "))
            for _, text in theirs["sse"] for frame in text.strip().split("\n\n")
            if frame != "data: [DONE]" and not frame.endswith("(cut)")]


def check_stream(theirs, answer):
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    data = list(sse(answer.text))
    assert data.pop() == "[DONE]"
    ours, theirs = [json.loads(one) for one in data], frames_of(theirs)

    def parts(frames):
        """By choice: its frames. A choice's first, last and middle frames have
        shapes of their own; usage comes in frames without choices."""
        by_choice, rest = {}, []
        for frame in frames:
            if frame["choices"]:
                by_choice.setdefault(frame["choices"][0]["index"],
                                     []).append(frame)
            else:
                rest.append(frame)
        return by_choice, rest

    (choices, rest), (their_choices, their_rest) = parts(ours), parts(theirs)
    assert set(choices) == set(their_choices)
    assert len(rest) == len(their_rest)
    found = []
    for index, frames in choices.items():
        for place in (0, 1, -1):
            if len(frames) > 2 and len(their_choices[index]) > 2:
                found += differences(their_choices[index][place], frames[place],
                                     f"frame {place}")
        assert frames[-1]["choices"][0]["finish_reason"]
        assert all(frame["choices"][0]["finish_reason"] is None
                   for frame in frames[:-1])
    for one, other in zip(their_rest, rest):
        found += differences(one, other, "usage frame")
        assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    assert found == []


def check_whole(theirs, answer):
    if "(cut)" in theirs["body"] or not theirs["body"].startswith("{"):
        return
    theirs, ours = json.loads(theirs["body"]), answer.json()
    assert list(differences(theirs, ours)) == []
    if "choices" in theirs:
        assert len(ours["choices"]) == len(theirs["choices"])
        # The same template and the same tokenizer.
        assert (ours["usage"]["prompt_tokens"]
                == theirs["usage"]["prompt_tokens"])
        if ids := theirs.get("prompt_token_ids"):
            assert ours["prompt_token_ids"] == ids


@pytest.mark.parametrize("name", sorted(REQUESTS or []))
def test_the_answer_is_ray_serve_llms(cluster, name):
    theirs, answer = ANSWERS[name], send(cluster, REQUESTS[name])
    expected = OTHER_STATUS.get(name, theirs["status"])
    assert answer.status_code == expected, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        if REQUESTS[name]["method"] != "HEAD":
            check_error(answer)
    elif "sse" in theirs:
        check_stream(theirs, answer)
    elif answer.status_code == 200:
        check_whole(theirs, answer)


def test_the_rule_finds_what_is_missing():
    theirs = json.loads(ANSWERS["chat.logprobs"]["body"])
    ours = json.loads(ANSWERS["chat.logprobs"]["body"])
    assert list(differences(theirs, ours)) == []
    del ours["choices"][0]["message"]["role"]
    ours["usage"]["total_tokens"] = "7"
    ours["choices"][0]["logprobs"]["content"][1]["top_logprobs"][0] = {}
    found = list(differences(theirs, ours))
    assert len(found) == 5, found  # role, total_tokens; token, logprob, bytes
