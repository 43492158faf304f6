"""What goes to a trace and comes from it, without torch."""

from __future__ import annotations

import json

import pytest

from launcher.errors import UsageError
from launcher.memory.stack import Stack
from launcher.memory.types import Settings
from launcher.worker.trace.ledger import Ledger
from launcher.worker.trace.request import Refused, Trace, answer, parse

LLAMA = {"model_type": "llama", "hidden_size": 64}


def request(**changed: object) -> str:
    stage = {"name": "s", "method": "ppo", "models": {"policy": "a", "reward_model": "b"}}
    one = {"stage": stage, "configs": {"policy": LLAMA}, "settings": {"micro_batch": 4}}
    return json.dumps({"stages": [{**one, **changed}]})


def test_settings_and_stack_may_be_given_in_part() -> None:
    (asked,) = parse(request(stack={"attention": "eager"}))
    assert asked.settings == Settings(micro_batch=4)
    assert asked.stack == Stack(attention="eager")


def test_a_role_without_a_config_has_the_main_models() -> None:
    (asked,) = parse(request())
    assert asked.config("reward_model") == LLAMA


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "no list `stages`"),
        ("{", "truncated"),
        (request(settings={"micro_batch": "four"}), "micro_batch"),
        (request(configs={}), "config of policy"),
        (request(configs={"policy": LLAMA, "reward_model": {}}), "config of reward_model"),
        (request(stage={"name": "s", "method": "bco", "models": {}}), "bco"),
    ],
)
def test_what_is_no_request_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(text)


def test_an_answer_holds_traces_and_refusals_in_order() -> None:
    trace = Trace("a", {"load": 512, "step": 2048}, 1024, (("mm", 512),), ("attention",), 0.5)
    stages = json.loads(answer((trace, Refused("b", "why")), {"torch": "2"}))["stages"]
    assert (stages[0]["peak"], stages[0]["live"]) == (2048, [["mm", 512]])
    assert stages[1] == {"name": "b", "refused": "why"}


def test_tensors_count_in_blocks_of_512_bytes() -> None:
    ledger = Ledger()
    ledger.enter("load")
    assert ledger.add("weights", 513) == 1024
    assert ledger.live == 1024


def test_a_phase_begins_with_what_lives() -> None:
    ledger = Ledger()
    ledger.enter("load")
    ledger.add("weights", 1024)
    ledger.enter("loss")
    with ledger.holding("mm", 512, 512):
        pass
    assert ledger.phases == {"load": 1024, "loss": 2048}


def test_what_lived_at_the_peak_is_told_by_operator() -> None:
    ledger = Ledger()
    ledger.enter("loss")
    kept = ledger.add("mm", 512)
    ledger.free("add", ledger.add("add", 4096))
    ledger.add("mul", 1024)
    ledger.free("mm", kept)
    assert {name: size for name, size in ledger.at_peak().items() if size} == {
        "mm": 512,
        "add": 4096,
    }


def test_a_first_step_is_forgotten_and_weights_stay() -> None:
    ledger = Ledger()
    ledger.enter("load")
    ledger.add("weights", 512)
    ledger.enter("step")
    ledger.free("mm", ledger.add("mm", 4096))
    ledger.forget()
    ledger.free("batch", ledger.add("batch", 8192))
    ledger.enter("loss")
    ledger.enter("step")
    assert ledger.phases == {"load": 512, "loss": 512, "step": 512}
    assert list(ledger.phases) == ["load", "loss", "step"]
