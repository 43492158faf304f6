from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.plan.document import plan_from_json, plan_to_json
from tests.unit.planning import MIXED, chain, plan

PLAN = plan(chain("Qwen/Qwen2.5-7B"), MIXED)
Change = Callable[[dict[str, Any]], object]


def ppo(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["stages"][2]
    return found


def test_a_plan_is_read_back_as_it_was() -> None:
    text = plan_to_json(PLAN)
    assert plan_from_json(text) == PLAN
    assert plan_to_json(plan_from_json(text)) == text


def test_a_plan_without_predictions_is_read_too() -> None:
    document = json.loads(plan_to_json(PLAN))
    for name in ("objective", "notes"):
        del document[name]
    for each in document["stages"]:
        for name in ("prediction", "disk", "save_steps", "advice", "ladder"):
            del each[name]
        del each["allocation"]["signal_lead_s"]
        for line in each["rejected"]:
            del line["hours"], line["gpu_hours"]
    read = plan_from_json(json.dumps(document))
    assert read.stage("ppo").prediction is None
    assert read.stage("ppo").allocation.signal_lead_s == 120


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"schema_version": 1}', "[" * 99999])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        plan_from_json(text)


CHANGES: dict[str, tuple[Change, str]] = {
    "another schema version": (lambda d: d.update(schema_version=2), "schema version 2"),
    "an unknown key": (lambda d: ppo(d).update(zero_stge=3), r"\$\.stages\[2\]\.zero_stge"),
    "an unknown key deep down": (
        lambda d: ppo(d)["stage"]["data"].update(rowz=3),
        r"stage\.data\.rowz",
    ),
    "a word for a number": (lambda d: ppo(d).update(micro_batch="8"), "micro_batch"),
    "another micro-batch": (lambda d: ppo(d).update(micro_batch=3), "global_batch 64"),
    "another batch in DeepSpeed": (
        lambda d: ppo(d)["deepspeed"].update(train_batch_size=7),
        "deepspeed.train_batch_size",
    ),
    "another ZeRO stage": (lambda d: ppo(d).update(zero_stage=2), "zero_optimization.stage"),
    "no DeepSpeed": (lambda d: ppo(d).update(deepspeed=None), "stages.ppo.deepspeed"),
    "another dtype": (lambda d: ppo(d)["stage"].update(dtype="float32"), "deepspeed.bf16"),
    "another partition": (
        lambda d: ppo(d)["allocation"].update(partition="forty\nrm -rf ~"),
        "allocation.partition",
    ),
    "more nodes": (
        lambda d: (ppo(d)["allocation"].update(nodes=8), ppo(d).update(micro_batch=1)),
        "does not offer",
    ),
    "more time": (lambda d: ppo(d)["allocation"].update(time_minutes=99999), "time_minutes"),
    "a signal after the end": (
        lambda d: ppo(d)["allocation"].update(signal_lead_s=10**6),
        "signal_lead_s",
    ),
    "no steps between checkpoints": (lambda d: ppo(d).update(save_steps=0), "save_steps"),
    "a GPU it has not": (lambda d: ppo(d)["allocation"].update(gpu="b200"), "does not offer"),
    "code in the environment": (
        lambda d: ppo(d)["stage"]["env"].update(LD_PRELOAD="x.so"),
        "LD_PRELOAD",
    ),
    "a line break in the environment": (
        lambda d: ppo(d)["stage"]["env"].update(NCCL_DEBUG="INFO\nrm"),
        "control character",
    ),
    "a line break in a scheduler option": (
        lambda d: d["cluster"].update(account="me\n#SBATCH --wrap=x"),
        "control character",
    ),
    "a path for a stage's name": (
        lambda d: ppo(d)["stage"].update(name="../../home"),
        "no stage name",
    ),
    "a path for the run's name": (lambda d: d.update(name="../x"), "run name"),
    "a name twice": (lambda d: ppo(d)["stage"].update(name="sft"), "stands twice"),
    "stages out of order": (lambda d: d["stages"].reverse(), "does not come before"),
    "a model of a stage that is not there": (
        lambda d: ppo(d)["stage"]["models"].update(policy="stage:gone"),
        "'stage:gone' does not come before",
    ),
    "an unknown method": (lambda d: ppo(d)["stage"].update(method="ppoo"), "no method"),
    "no phases": (lambda d: ppo(d)["estimate"].update(phases=[]), "no phases"),
    "another batch on a rung": (
        lambda d: ppo(d)["ladder"][0].update(accumulation=99),
        r"ladder\[0\]\.micro_batch × accumulation × processes",
    ),
    "another batch in DeepSpeed on a rung": (
        lambda d: ppo(d)["ladder"][0]["deepspeed"].update(train_batch_size=7),
        r"ladder\[0\]\.deepspeed\.train_batch_size",
    ),
    "more nodes on a rung": (
        lambda d: ppo(d)["ladder"][0]["allocation"].update(nodes=99),
        r"ladder\[0\]\.allocation.*does not offer",
    ),
    "another allocation that a rung calls the plan's": (
        lambda d: ppo(d)["ladder"][0]["allocation"].update(host_memory_gib=900.0),
        r"ladder\[0\]\.same_allocation: is true",
    ),
    "checkpoints that a rung cannot read": (
        lambda d: ppo(d)["ladder"][-1].update(keeps_checkpoints=True),
        r"ladder\[\d\]\.keeps_checkpoints: is true",
    ),
    "a terminal escape on a rung": (
        lambda d: ppo(d)["ladder"][0].update(what="\x1b[2J"),
        "control character",
    ),
    "nothing at a time": (lambda d: ppo(d).update(micro_batch=0), "at least 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_plan_that_was_changed_by_hand_is_checked_again(name: str) -> None:
    change, message = CHANGES[name]
    document = copy.deepcopy(json.loads(plan_to_json(PLAN)))
    change(document)
    with pytest.raises(UsageError, match=message):
        plan_from_json(json.dumps(document))
