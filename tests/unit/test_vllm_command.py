"""The program of a server, and what its trainers are told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.types import Allocation
from launcher.recipe.types import Data, Stage
from launcher.records import serving
from launcher.records.paths import StagePaths
from launcher.worker.vllm import address, client, command
from tests.unit.running import ON_SLURM

STAGE = Stage(
    "grpo",
    "grpo",
    {"policy": "owner/model"},
    data=Data("/data.jsonl", max_prompt_tokens=512),
    train={"use_vllm": True, "vllm_mode": "server", "max_completion_length": 256},
)


def argv(stage: Stage = STAGE, **keywords: Any) -> list[str]:
    given = {"address": "10.0.0.7", "port": 8123, "gpus": 4, **keywords}
    return command.argv("/env/bin/python", stage, "/runs/a b/model", **given)


def option(words: list[str], name: str) -> str:
    return words[words.index(f"--{name}") + 1]


def test_it_is_vllms_own_server_as_trls_client_needs_it() -> None:
    words = argv()
    assert words[:5] == [
        "/env/bin/python", "-m", "vllm.entrypoints.cli.main", "serve", "/runs/a b/model",
    ]  # fmt: skip
    assert json.loads(option(words, "weight-transfer-config")) == {"backend": "nccl"}
    assert option(words, "logprobs-mode") == "processed_logprobs"
    assert option(words, "max-logprobs") == "-1"
    assert option(words, "tensor-parallel-size") == "4"
    assert (option(words, "host"), option(words, "port")) == ("10.0.0.7", "8123")
    assert command.variables({}, address="a", gpus=1, first=0, on_gpus=False) == {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_HOST_IP": "a",
    }


def test_it_serves_the_revision_that_the_recipe_names() -> None:
    words = command.argv("python", STAGE, "owner/model@v1.0", address="a", port=1, gpus=1)
    assert words[4] == "owner/model"
    assert option(words, "revision") == option(words, "tokenizer-revision") == "v1.0"
    assert "--code-revision" not in words and "--revision" not in argv()


def test_it_takes_the_recipes_word_on_memory_and_length_else_its_own() -> None:
    assert option(argv(), "gpu-memory-utilization") == "0.9"
    assert option(argv(), "max-model-len") == "768"
    own = {**STAGE.train, "vllm_gpu_memory_utilization": 0.5, "vllm_max_model_length": 2048}
    words = argv(replace(STAGE, train=own))
    assert option(words, "gpu-memory-utilization") == "0.5"
    assert option(words, "max-model-len") == "2048"
    assert "--max-model-len" not in argv(replace(STAGE, data=Data("/data.jsonl")))


@pytest.mark.parametrize(
    ("visible", "first", "gpus", "own"),
    [("0,1,2,3,4", 4, 1, "4"), ("2,5,7,9", 2, 2, "7,9"), ("", 1, 2, "1,2"), ("0,1", 0, 2, "0,1")],
)
def test_it_sees_its_own_gpus_alone(visible: str, first: int, gpus: int, own: str) -> None:
    given = {"CUDA_VISIBLE_DEVICES": visible, "RANK": "4", "WORLD_SIZE": "5", "HOME": "/home/ada"}
    found = command.variables(given, address="a", gpus=gpus, first=first, on_gpus=True)
    assert found["CUDA_VISIBLE_DEVICES"] == own
    assert found["HOME"] == "/home/ada"
    assert not {"RANK", "WORLD_SIZE"} & found.keys()


def test_trainers_are_a_world_without_the_server_and_ask_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocation = Allocation("p", None, None, 2, 4, 1, 8.0, 60, server_gpus=4, server_apart=True)
    planned = replace(ON_SLURM.stages[0], allocation=allocation)
    start = serving.Start("f00d", "41")
    at = client.Place(StagePaths(Path("/run")), planned, start, 0)
    server = serving.Server(start, "ready", "http://127.0.0.1:8123")
    found = client.variables(at, server, {"no_proxy": ".lab"})
    assert (found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"]) == ("8", "4")
    assert found["no_proxy"] == found["NO_PROXY"] == ".lab,127.0.0.1"
    assert found["VLLM_HOST_IP"] == "127.0.0.1"
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    given = client.arguments(STAGE)
    # The address that it listens on is the address that it is asked at: TRL's own script names two.
    assert given["vllm_server_base_url"] == "http://127.0.0.1:8123"
    assert 0 < given["vllm_group_port"] < 2**16


def test_a_job_of_one_node_keeps_its_server_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.1")
    assert address.own(1) == "127.0.0.1"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert address.own(2) == "127.0.0.1"


def test_an_engine_beside_a_trainer_makes_room_for_what_it_is_asked_alone() -> None:
    beside = replace(STAGE, train={"use_vllm": True, "max_completion_length": 256})
    assert client.arguments(beside) == {"vllm_max_model_length": 768}
    own = {**beside.train, "vllm_max_model_length": 4096}
    assert client.arguments(replace(beside, train=own)) == {"vllm_max_model_length": 4096}
    assert client.arguments(replace(beside, data=Data("/data.jsonl"))) == {}
    # TRL's online DPO takes it from `max_length`, and has no such key.
    assert client.arguments(replace(beside, method="online_dpo")) == {}
    assert client.arguments(replace(beside, train={})) == {}
