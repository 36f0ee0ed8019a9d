"""The official client, unchanged, against the real model."""

import asyncio

import openai
import pytest

from cluster import wait_for

PROMPTS = ["Once upon a time", "The sky is", "def add(a, b):",
           "Water boils at", "My name is", "In the year 2050,",
           "The quick brown fox", "Roses are red,"]


@pytest.fixture(scope="module")
def client(cluster):
    with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any",
                       max_retries=0, timeout=60) as one:
        yield one


def ask(client, **more):
    return client.chat.completions.create(
        model="smollm2", temperature=0, max_tokens=12,
        messages=[{"role": "system", "content": "Answer briefly."},
                  {"role": "user", "content": "What is gravity?"}], **more)


def test_chat_answers_with_text_and_usage(client):
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content.strip()
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert (answer.usage.total_tokens
            == answer.usage.prompt_tokens + answer.usage.completion_tokens)
    assert answer.system_fingerprint


def test_a_chat_stream_is_the_whole_answer_in_pieces(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True,
                      stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in pieces)
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces
                   ) == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in pieces].count(None
                                                                     ) == len(pieces) - 1
    assert pieces[-1].choices[0].finish_reason == "length"
    assert len(pieces) > 3, "it came in one piece, not streamed"


def test_a_completion_stream_is_the_whole_answer_in_pieces(client):
    def complete(**more):
        return client.completions.create(
            model="smollm2", prompt="Once upon a time", max_tokens=12,
            temperature=0, **more)
    chunks = list(complete(stream=True))
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].text for chunk in chunks
                   ) == complete().choices[0].text


def test_completions_take_all_four_forms_of_prompt(client):
    def complete(prompt, **more):
        return client.completions.create(
            model="smollm2", prompt=prompt, temperature=0, max_tokens=6, **more)

    texts = ["Once upon a time", "The sky is"]
    alone = [complete(text, extra_body={"return_token_ids": True})
             for text in texts]
    ids = [answer.choices[0].prompt_token_ids for answer in alone]
    assert ids[0] == [6403, 1980, 253, 655]
    expected = [answer.choices[0].text for answer in alone]
    assert expected[0] != expected[1]

    for prompt in (texts, ids):
        answer = complete(prompt)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert [choice.text for choice in answer.choices] == expected
        assert answer.usage.prompt_tokens == sum(map(len, ids))
        assert answer.usage.completion_tokens == 12
    assert complete(ids[1]).choices[0].text == expected[1]


def test_models_are_listed_and_shown(client):
    (model,) = client.models.list().data
    assert model.id == "smollm2" and model.object == "model"
    assert model.created > 0 and model.owned_by
    assert client.models.retrieve("smollm2").id == "smollm2"


@pytest.mark.parametrize("kind, status, code, request_of", [
    (openai.NotFoundError, 404, "model_not_found",
     lambda client: client.models.retrieve("nope")),
    (openai.NotFoundError, 404, "model_not_found",
     lambda client: client.completions.create(model="nope", prompt="a")),
    (openai.BadRequestError, 400, None,
     lambda client: ask(client, extra_body={"temperature": 3})),
    (openai.BadRequestError, 400, None,
     lambda client: ask(client, extra_body={"temperature": 3, "stream": True})),
    (openai.BadRequestError, 400, None,
     lambda client: client.chat.completions.create(model="smollm2",
                                                   messages=[])),
])
def test_errors_have_openai_types(client, kind, status, code, request_of):
    with pytest.raises(kind) as raised:
        request_of(client)
    assert raised.value.status_code == status
    assert raised.value.type == "invalid_request_error"
    if code:
        assert raised.value.code == code
    assert raised.value.request_id


def test_64_streams_at_once_are_each_what_they_are_alone(cluster):
    requests = [
        dict(model="smollm2", prompt=f"{PROMPTS[i % 8]} {i}", max_tokens=12,
             temperature=0 if i % 2 else 0.9, seed=i,
             extra_body={"ignore_eos": True, "return_token_ids": True})
        for i in range(64)]

    async def tokens(client, request):
        stream = await client.completions.create(**request, stream=True)
        ids, text = [], ""
        async for chunk in stream:
            for choice in chunk.choices:
                ids += choice.token_ids or []
                text += choice.text
        return ids, text

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{cluster.url}/v1",
                                      api_key="any", max_retries=0,
                                      timeout=60) as client:
            before = cluster.load()
            together = await asyncio.gather(
                *(tokens(client, request) for request in requests))
            # Loads are reported now and then.
            wait_for(lambda: cluster.load()["output_tokens"]
                     >= before["output_tokens"] + 12 * 64, "no report")
            steps = cluster.load()["steps"] - before["steps"]
            alone = [await tokens(client, request) for request in requests]
        return together, alone, steps

    together, alone, steps = asyncio.run(all_of_them())
    assert all(len(ids) == 12 for ids, _ in alone)
    assert together == alone
    # They did run in common steps: one after the other takes 12 x 64.
    assert steps < 12 * 64 / 4
