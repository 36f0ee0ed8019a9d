"""POST /v1/embeddings, /v1/score and /v1/rerank on a real embedding model and a
tiny cross-encoder."""

import base64
import concurrent.futures
import math
import struct

import openai
import pytest

from cluster import ROOT, Cluster, model_config, serve_config
from conftest import running

MINILM = ROOT / "models/all-MiniLM-L6-v2"
RANKER = ROOT / "tests/reference/encoders/bert-score"
PAIRS = [("what is a cat", "a cat is an animal"), ("what is a cat", "blue"),
         ("one two", "three four five six seven eight nine ten")]


def encoder(name, source):
    return {**model_config(name), "model_loading_config": {
        "model_id": name, "model_source": str(source)}}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    config = serve_config(encoder("minilm", MINILM), encoder("ranker", RANKER))
    with running(Cluster(tmp_path_factory.mktemp("encoders"), config)) as one:
        one.wait_for_models("minilm", "ranker")
        yield one


def reference():
    """(text, ids, vector) of each text that PyTorch computed."""
    path = ROOT / "tests/reference/all-minilm-l6-v2.vectors"
    lines = path.read_text().split("\n")
    count = int(lines[0].split()[0])
    for i in range(1, 1 + 3 * count, 3):
        ids = [int(word) for word in lines[i + 1].split()[2:]]
        yield lines[i], ids, [float(word) for word in lines[i + 2].split()]


def embed(service, given, **more):
    answer = service.http.post("/v1/embeddings", json={
        "model": "minilm", "input": given, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(answer):
    assert [one["index"] for one in answer["data"]] == list(
        range(len(answer["data"])))
    return [one["embedding"] for one in answer["data"]]


def score(service, first, second, path="/v1/score"):
    answer = service.http.post(path, json={
        "model": "ranker", "text_1": first, "text_2": second})
    assert answer.status_code == 200, answer.text
    return [one["score"] for one in answer.json()["data"]]


def refused(service, path, **body):
    answer = service.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def test_the_list_of_models_says_what_each_gives(service):
    models = service.http.get("/v1/models").json()["data"]
    assert {one["id"]: one["task"] for one in models} == {
        "minilm": "embed", "ranker": "score"}


def test_vectors_are_those_of_the_reference(service):
    client = openai.OpenAI(base_url=service.url + "/v1", api_key="x")
    texts, ids, wanted = zip(*reference())
    answer = client.embeddings.create(model="minilm", input=list(texts))
    assert answer.usage.prompt_tokens == sum(map(len, ids))
    for text, one, expected in zip(texts, answer.data, wanted):
        assert math.fsum(a * b for a, b in zip(one.embedding, expected)) > (
            0.999), text


def test_a_vector_does_not_depend_on_its_company(service):
    texts = [text for text, _, _ in reference()]
    together = vectors(embed(service, texts))
    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        alone = list(pool.map(lambda text: vectors(embed(service, text))[0],
                              texts))
    assert alone == together


def test_ids_give_what_their_text_gives(service):
    texts, ids, _ = zip(*reference())
    assert vectors(embed(service, list(ids))) == vectors(
        embed(service, list(texts)))
    tokens = service.http.post("/tokenize", json={
        "model": "minilm", "prompt": texts[0]}).json()["tokens"]
    assert tokens == ids[0]


def test_base64_holds_the_same_floats(service):
    (plain,) = vectors(embed(service, "Troupe"))
    (packed,) = vectors(embed(service, "Troupe", encoding_format="base64"))
    floats = struct.unpack(f"<{len(plain)}f", base64.b64decode(packed))
    assert [struct.unpack("<f", struct.pack("<f", x))[0] for x in plain] == (
        list(floats))


def test_a_long_text_is_refused_or_cut(service):
    long = "word " * 2000
    wrong = refused(service, "/v1/embeddings", model="minilm", input=long)
    assert wrong["code"] == "context_length_exceeded"
    assert wrong["param"] == "input"
    cut = embed(service, long, truncate_prompt_tokens=-1)
    assert cut["usage"]["prompt_tokens"] == 256
    assert vectors(cut) == vectors(
        embed(service, "word " * 254, truncate_prompt_tokens=256))


def test_scores_and_rankings_agree(service):
    firsts, seconds = (list(side) for side in zip(*PAIRS))
    scores = score(service, firsts, seconds)
    assert scores == score(service, firsts, seconds, "/score")
    assert [score(service, *pair)[0] for pair in PAIRS] == scores
    assert all(0 < one < 1 for one in scores)
    assert len(set(scores)) == len(scores)
    query, documents = "what is a cat", seconds
    by_index = score(service, query, documents)
    for path in "/v1/rerank", "/rerank", "/v2/rerank":
        answer = service.http.post(path, json={
            "model": "ranker", "query": query, "documents": documents}).json()
        results = answer["results"]
        assert [one["relevance_score"] for one in results] == sorted(
            by_index, reverse=True)
        for one in results:
            assert one["relevance_score"] == by_index[one["index"]]
            assert one["document"]["text"] == documents[one["index"]]
    best = service.http.post("/v1/rerank", json={
        "model": "ranker", "query": query, "documents": documents,
        "top_n": 1, "return_documents": False}).json()["results"]
    assert [one["index"] for one in best] == [results[0]["index"]]
    assert "document" not in best[0]


@pytest.mark.parametrize("path, body", [
    ("/v1/chat/completions", {"model": "minilm", "messages": [
        {"role": "user", "content": "a"}]}),
    ("/v1/completions", {"model": "ranker", "prompt": "a"}),
    ("/v1/embeddings", {"model": "ranker", "input": "a"}),
    ("/v1/score", {"model": "minilm", "text_1": "a", "text_2": "b"}),
    ("/v1/rerank", {"model": "minilm", "query": "a", "documents": ["b"]})])
def test_a_model_says_what_it_does_not_give(service, path, body):
    assert refused(service, path, **body)["param"] == "model"


def test_a_model_of_text_gives_no_vectors(cluster):
    wrong = refused(cluster, "/v1/embeddings", model="smollm2", input="a")
    assert wrong["param"] == "model"


def test_dimensions_are_those_that_the_model_has(service):
    assert embed(service, "a", dimensions=384)["data"]
    wrong = refused(service, "/v1/embeddings", model="minilm", input="a",
                    dimensions=128)
    assert wrong["param"] == "dimensions"
