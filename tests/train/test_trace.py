"""The trace: the trainers' own steps, counted; and the committed traces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher.memory.stack import stack_of
from launcher.worker.trace import tensors
from launcher.worker.trace.cases import Case, case, cases
from launcher.worker.trace.grid import row_of
from launcher.worker.trace.request import Refused, Request, Trace
from launcher.worker.trace.step import trace

FILE = Path(__file__).parent.parent / "data" / "traces.json"
SAMPLE = (
    "sft-qwen2-0.5b-4l-b2-s1024-full-acc2",
    "sft-llama-8b-3l-b8-s512-lora-ckpt",
    "sft-qwen2-0.5b-4l-b2-s1024-dora",
    "sft-qwen2-0.5b-4l-b2-s1024-full-stock",
    "sft-llama-1b-3l-b2-s512-full-eager",
    "reward-qwen2-0.5b-4l-b2-s1024-lora-ckpt",
    "dpo-llama-1b-3l-b4-s512-full",
    "kto-qwen2-0.5b-4l-b2-s1024-full",
    "ppo-qwen2-0.5b-4l-b4-s256-full-acc2-reward_model",
    "grpo-qwen2-0.5b-4l-b4-s256-lora-acc2",
)


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def request(given: Case, **settings: Any) -> Request:
    made = msgspec.convert(msgspec.to_builtins(given), Request)
    return replace(made, settings=replace(made.settings, **settings))


def traced(given: Case | Request) -> Trace:
    found = trace(given if isinstance(given, Request) else request(given))
    assert isinstance(found, Trace), found
    return found


SMALL = case("qwen2-0.5b", 1, batch=1, length=128)


def test_the_committed_traces_are_of_every_case_and_of_the_installed_versions(
    committed: Mapping[str, Any],
) -> None:
    assert [row["stage"] for row in committed["rows"]] == [one.stage for one in cases()]
    for package in ("torch", "transformers", "trl", "peft", "accelerate"):
        assert committed["versions"][package] == version(package), "run `make traces`"


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_traced_again_comes_out_as_committed(
    name: str, committed: Mapping[str, Any]
) -> None:
    given = next(one for one in cases() if one.stage["name"] == name)
    row = next(row for row in committed["rows"] if row["stage"]["name"] == name)
    assert row_of(given) == row


def test_a_trace_calls_the_trainers_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import SFTTrainer

    own, calls = SFTTrainer.compute_loss, []

    def counted(self: Any, *given: Any, **named: Any) -> Any:
        calls.append(self.model)
        return own(self, *given, **named)

    monkeypatch.setattr(SFTTrainer, "compute_loss", counted)
    traced(SMALL)
    assert len(calls) == 1


def test_models_and_optimizer_are_what_stays_between_steps() -> None:
    hidden, inner, vocabulary, key_values = 896, 4864, 151936, 128
    block = 2 * hidden * (hidden + key_values) + 3 * hidden * inner
    parameters = vocabulary * hidden + block + hidden + 2 * key_values + 3 * hidden
    found = traced(SMALL)
    batches = 2 * 3 * 128 * 8  # this step's and the next: ids, labels, mask
    assert found.phases["load"] == pytest.approx(4 * parameters, abs=2**14)
    assert found.resident == pytest.approx(3 * 4 * parameters + batches, abs=2**16)


def test_the_workers_own_stack_is_what_is_built_where_none_is_given() -> None:
    for adapters in ("full", "lora"):
        given = request(case("qwen2-0.5b", 1, batch=1, length=128, adapters=adapters))
        named = replace(given, stack=stack_of(given.stage, given.settings))
        assert traced(named).phases == traced(given).phases


@pytest.mark.parametrize(
    "built",
    [{"checkpointing": True}, {"adapters": "dora"}, {"stack": "stock"}, {"method": "reward"}],
    ids=str,
)
def test_fake_tensors_live_as_real_ones_do(
    built: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = request(case("qwen2-0.5b", 2, length=64, **built))
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    tiny = {**given.config("model"), **small, "vocab_size": 512}
    given = replace(given, configs={"model": tiny})
    fake = traced(given)
    monkeypatch.setattr(tensors, "FakeTensorMode", lambda **_: nullcontext())
    monkeypatch.setattr(tensors, "FakeTensor", _None)
    assert traced(given).phases == fake.phases


class _None:
    """No tensor is one."""


def test_checkpointing_a_layer_keeps_only_its_input() -> None:
    plain, again = (
        traced(case("qwen2-0.5b", 3, "reward", length=512, checkpointing=checkpointing))
        for checkpointing in (False, True)
    )
    assert again.phases["loss"] < plain.phases["loss"]
    assert again.resident == plain.resident


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"processes": 2}, "one process"),
        ({"zero_stage": 3}, "one process"),
        ({"device": "cpu"}, "GPU"),
    ],
)
def test_what_is_not_traced_is_said(settings: dict[str, Any], says: str) -> None:
    found = trace(request(SMALL, **settings))
    assert isinstance(found, Refused) and says in found.refused


def test_what_a_trainer_refuses_is_passed_on() -> None:
    indivisible = case("qwen2-0.5b", 1, "grpo", batch=3, length=16, prompt=16)
    found = trace(request(indivisible))
    assert isinstance(found, Refused) and "num_generations" in found.refused


def test_nothing_of_the_stack_stays_replaced() -> None:
    import torch
    from trl.kernels import chunked_logprob

    before = (torch.nn.Module.to, chunked_logprob._use_triton, chunked_logprob._addmm_fp32)
    traced(SMALL)
    after = (torch.nn.Module.to, chunked_logprob._use_triton, chunked_logprob._addmm_fp32)
    assert after == before


def test_the_command_answers_with_one_document() -> None:
    asked = json.dumps({"stages": [msgspec.to_builtins(SMALL)]})
    done = subprocess.run(
        [sys.executable, "-m", "launcher.worker.trace"],
        input=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["peak"] == max(stage["phases"].values())
    assert list(stage["phases"]) == ["load", "loss", "backward", "step"]
    assert len(stage["live"]) == 10 and stage["modelled"]
