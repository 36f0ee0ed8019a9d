"""Directories of Hugging Face's formats, served as a user would."""

import json
import math
import shutil
import struct

import openai
import pytest

from cluster import ROOT, WEIGHTS, model_config, run_verb, serve_config
from safetensors_directory import write_directory

TINY = ROOT / "tests/reference/tiny"


def config_for(source, **engine_kwargs):
    model = model_config(engine_kwargs=engine_kwargs)
    model["model_loading_config"]["model_source"] = str(source)
    return serve_config(model)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    write_directory(folder, WEIGHTS)
    return folder


def client_of(cluster):
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any",
                         max_retries=0, timeout=60)


def ask(client, **more):
    return client.chat.completions.create(
        model="smollm2", max_tokens=24, messages=[
            {"role": "user", "content": "What is the capital of France?"}],
        **more)


def test_the_real_weights_are_served_as_they_are_and_quantised(start,
                                                               directory):
    answers = {}
    for kwargs in [{}, {"quantization": "q8_0"}, {"quantization": "q4_0"},
                   {"dtype": "float16", "load_format": "safetensors"}]:
        cluster = start(config_for(directory, max_model_len=512, **kwargs))
        with client_of(cluster) as client:
            # generation_config.json says temperature 0: nobody draws lots.
            answer = ask(client)
            stream = ask(client, stream=True)
            text = "".join(chunk.choices[0].delta.content or ""
                           for chunk in stream)
        assert text == answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert "France" in text or "Paris" in text, text
        answers[json.dumps(kwargs)] = answer
        assert cluster.stop() == 0
    prints = {answer.system_fingerprint for answer in answers.values()}
    assert len(prints) == len(answers)


@pytest.mark.parametrize("name", ["llama-awq", "llama-gptq", "llama-int8",
                                  "llama-fp8", "llama-sharded-f16"])
def test_every_kind_of_directory_answers(start, name):
    cluster = start(config_for(TINY / name))
    with client_of(cluster) as client:
        answer = ask(client, seed=1)
    assert answer.usage.completion_tokens > 0


def test_a_seed_makes_unseeded_requests_repeat_in_their_order(start):
    heard = []
    for _ in range(2):
        cluster = start(config_for(TINY / "llama-bf16", seed=7))
        with client_of(cluster) as client:
            heard.append([ask(client, temperature=1, logprobs=True)
                          .choices[0].message.content for _ in range(3)])
        cluster.stop()
    assert heard[0] == heard[1]
    assert len(set(heard[0])) == 3


def test_a_directory_that_is_not_understood_is_refused_by_name(tmp_path):
    def said(change, source="llama-bf16", **engine_kwargs):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(TINY / source, folder)
        change(folder)
        file = tmp_path / "serve.yaml"
        file.write_text(config_for(folder, **engine_kwargs))
        plan = run_verb("plan", file)
        assert plan.returncode == 1, plan
        return plan.stdout + plan.stderr

    def with_code(folder):
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
        (folder / "config.json").write_text(json.dumps(config))

    def with_infinite_scale(folder):
        file = folder / "model.safetensors"
        data = bytearray(file.read_bytes())
        begin = 8 + struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8:begin])
        name = "model.layers.0.mlp.down_proj.weight_scale"
        assert header[name]["dtype"] == "F32"
        struct.pack_into("<f", data, begin + header[name]["data_offsets"][0],
                         math.inf)
        file.write_bytes(data)

    assert "code of its own" in said(with_code)
    assert "a scale that is not finite" in said(with_infinite_scale,
                                                source="llama-fp8")
    assert "not with awq" in said(lambda folder: None, quantization="awq")
    assert "cut short" in said(
        lambda folder: (folder / "model.safetensors").write_bytes(b"x"))
