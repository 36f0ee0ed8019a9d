"""POST /tokenize and /detokenize."""

import pytest

TEXTS = ["Hello, world!", "Grüße — 你好 🎉", "<|im_start|>user", " a\n\n  b",
         "e\u0301"]


def tokenize(cluster, **body):
    answer = cluster.http.post("/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_a_completion(cluster, text):
    found = tokenize(cluster, prompt=text, model="smollm2")
    used = cluster.complete(text, max_tokens=1, return_token_ids=True).json()
    assert found["tokens"] == used["choices"][0]["prompt_token_ids"]
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 2048
    assert found["token_strs"] is None


@pytest.mark.parametrize("text", TEXTS)
def test_ids_turn_back_into_text(cluster, text):
    found = tokenize(cluster, prompt=text, return_token_strs=True)
    assert len(found["token_strs"]) == found["count"]
    answer = cluster.http.post("/detokenize", json={"tokens": found["tokens"]})
    assert answer.json() == {"prompt": text}


def test_a_chat_goes_through_the_template(cluster):
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    found = tokenize(cluster, messages=messages)
    used = cluster.http.post("/v1/chat/completions", json={
        "messages": messages, "max_tokens": 1, "return_token_ids": True}).json()
    assert found["tokens"] == used["prompt_token_ids"]
    closed = tokenize(cluster, messages=messages, add_generation_prompt=False)
    assert closed["tokens"] == found["tokens"][:closed["count"]]
    assert 0 < closed["count"] < found["count"]


@pytest.mark.parametrize("path, body, param", [
    ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 1}, "prompt"),
    ("/tokenize", {"prompt": ["a", "b"]}, "prompt"),
    ("/tokenize", {"prompt": [1, 2]}, "prompt"),
    ("/tokenize", {"messages": []}, "messages"),
    ("/tokenize", {"prompt": "a", "return_token_strs": "perhaps"},
     "return_token_strs"),
    ("/tokenize", {"prompt": "word " * 500_000}, "prompt"),
    ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": "x"}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ("/detokenize", {"tokens": [1, 1.5]}, "tokens[1]"),
    ("/detokenize", {"tokens": [1, 999_999]}, "tokens"),
    ("/detokenize", {"tokens": [2 ** 63]}, "tokens[0]")])
def test_what_is_wrong_is_named(cluster, path, body, param):
    answer = cluster.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_no_ids_are_no_text(cluster):
    answer = cluster.http.post("/detokenize", json={"tokens": []})
    assert answer.json() == {"prompt": ""}


def test_only_known_models_and_posts(cluster):
    for path in ("/tokenize", "/detokenize"):
        assert cluster.http.get(path).status_code == 405
        unknown = cluster.http.post(path, json={
            "model": "other", "prompt": "a", "tokens": [1]})
        assert unknown.status_code == 404
