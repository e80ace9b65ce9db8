"""From a scenario to vLLM's arguments and environment; no vLLM needed."""

import argparse
import json
from pathlib import Path

import pytest

from raybench.scenario.models import Deployment
from raybench.serving.vllm_args import ELSEWHERE, arguments, command_line, environment


def deployment(**changes) -> Deployment:
    given = {"engine": "vllm", "model": "org/some-model", "slots_per_replica": 7, "replica": {"gpus": 1}}
    return Deployment(**(given | changes))


CPU = {"cpus": 2, "memory": 8 * 2**30, "gpus": 0}


def test_slots_and_name_are_the_scenarios():
    assert arguments(deployment()) == {
        "model": "org/some-model",
        "served_model_name": ["org/some-model"],
        "max_num_seqs": 7,
    }


def test_engine_arguments_are_passed_on_with_either_spelling():
    got = arguments(deployment(engine_args={"max-model-len": 4096, "kv_cache_dtype": "fp8", "seed": None}))
    assert (got["max_model_len"], got["kv_cache_dtype"]) == (4096, "fp8")
    assert "seed" not in got


def test_weights_may_come_from_elsewhere_than_the_name(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    got = arguments(deployment(model="llama", engine_args={"model": "weights"}))
    assert got["model"] == str(Path("weights").absolute())
    assert got["served_model_name"] == ["llama"]


def test_a_hub_id_stays_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert arguments(deployment())["model"] == "org/some-model"


def test_a_relative_directory_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"deployment\.engine_args\.model: no directory \./nowhere here"):
        arguments(deployment(engine_args={"model": "./nowhere"}))


def test_sampling_defaults_become_vllms_generation_config():
    got = arguments(deployment(sampling={"temperature": 0.5, "top_k": 20}))
    assert got["override_generation_config"] == {"temperature": 0.5, "top_k": 20}


def test_a_default_that_vllm_would_take_as_a_limit_is_refused():
    with pytest.raises(ValueError, match=r"deployment\.sampling\.max_tokens: .*load\.request\.max_tokens"):
        arguments(deployment(sampling={"max_tokens": 64}))


def test_an_unknown_sampling_default_names_those_that_exist():
    with pytest.raises(ValueError, match=r"deployment\.sampling\.temprature: .*temperature, top_p"):
        arguments(deployment(sampling={"temprature": 0.5}))


@pytest.mark.parametrize("key", sorted(ELSEWHERE))
def test_what_has_its_own_place_is_refused_with_that_place(key):
    with pytest.raises(ValueError, match=rf"deployment\.engine_args\.{key}: 1 .*") as caught:
        arguments(deployment(engine_args={key.replace("_", "-"): 1}))
    assert ELSEWHERE[key] in str(caught.value)


def test_on_a_cpu_the_cache_is_a_part_of_the_replicas_memory():
    got = arguments(deployment(replica=CPU))
    assert got["kv_cache_memory_bytes"] == 2 * 2**30
    assert got["enforce_eager"] is True
    assert arguments(deployment(replica=CPU, engine_args={"enforce_eager": False}))["enforce_eager"] is False
    assert "kv_cache_memory_bytes" not in arguments(deployment())


def test_on_a_cpu_a_replica_keeps_to_its_cores():
    assert environment(deployment(replica=CPU))["OMP_NUM_THREADS"] == "2"
    assert environment(deployment(replica=CPU | {"cpus": 0.5}))["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in environment(deployment())


def test_the_scenarios_environment_wins():
    assert environment(deployment(env={"VLLM_LOGGING_LEVEL": "DEBUG"}))["VLLM_LOGGING_LEVEL"] == "DEBUG"


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--disable-log-stats", action="store_true")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--speculative-config", type=json.loads)
    parser.add_argument("--chat-template")
    return parser


@pytest.mark.parametrize(
    "given",
    [
        {"max_model_len": 2048},
        {"enforce_eager": True, "disable_log_stats": True},
        {"enforce_eager": False, "disable_log_stats": False},
        {"served_model_name": ["a", "b"], "max_model_len": 1},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"chat_template": "--{{ messages }} =x"},
    ],
)
def test_the_command_line_reads_back_as_what_was_given(parser, given):
    read = vars(parser.parse_args(command_line(given, parser)))
    assert {key: read[key] for key in given} == given


def test_an_unknown_argument_is_named_with_its_nearest(parser):
    with pytest.raises(
        ValueError, match=r"deployment\.engine_args\.max_model_length: .*did you mean max_model_len\?"
    ):
        command_line({"max_model_length": 1}, parser)
