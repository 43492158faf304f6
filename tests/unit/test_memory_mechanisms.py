"""Mechanisms of other software, and of large models, each told by what it moves."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.memory.estimate import estimate
from launcher.memory.process import CONTEXT
from launcher.memory.stack import Stack
from launcher.memory.states import SUB_GROUP
from launcher.memory.types import GIB, MemoryEstimate
from launcher.plan.candidates import variants
from launcher.plan.deepspeed import shipped_bases
from launcher.plan.evidence import Evidence
from launcher.plan.layouts import layouts
from launcher.plan.search import Search
from launcher.recipe.types import Peft
from tests.unit import planning
from tests.unit.planning import settings, shapes, stage

LARGE = "Qwen/Qwen2.5-72B"
HALF = Stack(compute="bfloat16", weights="bfloat16", loss="stock", optimizer="adamw_torch")


def of(
    stack: Stack | None = None, model: str = "Qwen/Qwen2.5-7B", given: Any = None, **keywords: Any
) -> MemoryEstimate:
    return estimate(given or stage(), {"model": shapes(model)}, settings(**keywords), stack)


def items(found: MemoryEstimate, phase: str) -> dict[str, int]:
    return dict(next(each.items for each in found.phases if each.name == phase))


def test_zero_3_updates_a_part_of_a_large_models_states_at_a_time() -> None:
    sharded: dict[str, Any] = {"processes": 16, "processes_per_node": 8, "zero_stage": 3}
    step = items(of(model=LARGE, **sharded), "step")["optimizer step"]
    assert 4 * SUB_GROUP <= step < 4 * 1.1 * SUB_GROUP
    small = items(of(**sharded), "step")["optimizer step"]
    assert small == pytest.approx(4 * shapes("Qwen/Qwen2.5-7B").parameters / 16)


def test_modules_that_train_whole_beside_adapters_keep_the_bases_precision() -> None:
    def trained(*names: str) -> int:
        adapted = stage(peft=Peft(modules_to_save=names))
        return items(of(given=adapted), "step")["gradients"]

    head = shapes("Qwen/Qwen2.5-7B").embedding_parameters
    assert trained("lm_head") - trained() == 2 * head


def test_fsdp_with_its_parameters_on_the_host_keeps_none_on_the_device() -> None:
    fsdp = Stack(weights="float32", sharding="fsdp", autocast=True, loss="stock")
    keywords: dict[str, Any] = {"processes": 4, "processes_per_node": 4, "zero_stage": 3}
    near, far = of(fsdp, **keywords), of(fsdp, offload="all", **keywords)
    assert items(near, "backward")["weights"] > 0
    assert "weights" not in items(far, "backward")
    assert items(far, "backward")["gathered weights"] == items(near, "backward")["gathered weights"]
    assert far.host_bytes - near.host_bytes > 4 * shapes("Qwen/Qwen2.5-7B").parameters / 4


def test_the_pool_of_a_loss_grows_with_what_a_block_used_and_not_with_the_weights() -> None:
    def idle(phase: str, stack: Stack, micro: int) -> float:
        found = of(stack, micro_batch=micro, gradient_checkpointing=True)
        return items(found, phase)["fragmentation"] / GIB

    assert idle("loss", HALF, 8) == pytest.approx(2 * idle("loss", HALF, 4), rel=0.1)
    assert idle("loss", HALF, 4) < 2
    assert items(of(HALF), "step")["fragmentation"] / GIB > 3


def test_segments_that_grow_leave_little_idle() -> None:
    found = of(gradient_checkpointing=True)
    for phase in found.phases:
        rest = phase.total - phase.items["fragmentation"] - CONTEXT
        assert phase.items["fragmentation"] <= 0.0401 * rest


@pytest.mark.parametrize("peft", [None, Peft()])
@pytest.mark.parametrize("method", ["sft", "reward", "ppo"])
def test_what_the_search_rules_out_by_does_not_exceed_the_estimate(method: str, peft: Any) -> None:
    given = stage(method, peft=peft, global_batch=64)
    roles = {role: shapes("Qwen/Qwen2.5-7B") for role in given.models}
    search = Search(given, roles, planning.MIXED, shipped_bases(), Evidence())
    for layout in layouts(planning.MIXED, given)[:4]:
        micro, accumulation = search.batches(layout.processes)[0]
        for offload in (False, True):
            for each in variants(given, layout, "cuda", None, shipped_bases(), offload=offload):
                asked = settings(**each, micro_batch=micro, accumulation=accumulation)
                assert search._fixed(asked) <= search.estimate(asked).peak.total
