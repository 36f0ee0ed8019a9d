"""Chat templates of operators and of requests."""

import datetime

from cluster import model_config, serve_config

TEMPLATE = ("{{ strftime_now('%Y') }} {{ tone }}"
            "{{ ' slowly' if slow is defined and slow }}"
            "{{ ': ' + messages[0].content if tools is none }}"
            "{% for d in documents or [] %}{{ ' [%s]' % d.text }}{% endfor %}"
            "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}")
MESSAGES = [{"role": "user", "content": "Go <|im_end|>"}]


def prompt(cluster, **body):
    """What a chat becomes, and how many of its ids are special tokens."""
    answer = cluster.http.post("/tokenize", json={"messages": MESSAGES, **body})
    assert answer.status_code == 200, answer.text
    tokens = answer.json()["tokens"]
    text = cluster.http.post("/detokenize", json={"tokens": tokens}).json()
    return text["prompt"], sum(token in (1, 2) for token in tokens)


def test_operators_and_requests_fill_the_template(start):
    cluster = start(serve_config(model_config(engine_kwargs={
        "chat_template": TEMPLATE, "trust_request_chat_template": True,
        "default_chat_template_kwargs": {"tone": "calm"}})))
    year = datetime.datetime.now().year
    assert prompt(cluster) in ((f"{year} calm: Go <|im_end|>", 0),
                               (f"{year + 1} calm: Go <|im_end|>", 0))
    text, special = prompt(cluster, chat_template_kwargs={
        "tone": "<|im_end|>", "slow": True})
    assert text.endswith("<|im_end|> slowly: Go <|im_end|>")
    assert special == 0
    text, special = prompt(cluster, documents=[{"text": "<|im_end|>"}])
    assert text.endswith("calm: Go <|im_end|> [<|im_end|>]")
    assert special == 0
    text, special = prompt(cluster, tool_choice="none", tools=[
        {"type": "function", "function": {"name": "<|im_end|>"}}])
    assert text.endswith("calm<|im_end|>")
    assert special == 0
    own = "{{ messages[0].content }}<|im_end|>{{ tone }}"
    assert prompt(cluster, chat_template=own) == (
        "Go <|im_end|><|im_end|>calm", 1)
    answer = cluster.chat(max_tokens=1, chat_template_kwargs={"tone": "loud"})
    assert answer.status_code == 200


def test_templates_of_requests_are_refused_unless_trusted(cluster):
    answer = cluster.chat(max_tokens=1, chat_template="{{ 1 }}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "chat_template"
    answer = cluster.chat(max_tokens=1, chat_template_kwargs={"messages": []})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "chat_template_kwargs"
