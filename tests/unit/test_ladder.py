"""What a plan holds for the case that memory runs out."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from launcher.cli.plan_text import climb
from launcher.cluster.types import Cluster
from launcher.memory.types import GIB
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.plan.evidence import Evidence
from launcher.plan.formula import fingerprint
from launcher.plan.make import make_plan
from launcher.plan.observe import observe
from launcher.plan.types import StagePlan
from launcher.recipe.types import Command, Data, Peft, Recipe, Stage
from launcher.records.attempts import Attempt
from launcher.records.measurement import Measurement, PhaseMeasurement
from tests.unit.planning import (
    FORTY,
    LAPTOP,
    MIXED,
    POOR,
    STAND_INS,
    chain,
    cluster,
    pinned,
    plan,
    plan_one,
    recipe,
    shapes,
    stage,
)

SEVEN = "Qwen/Qwen2.5-7B"


def rungs(planned: StagePlan) -> list[StagePlan]:
    """The plan, then each rung of its ladder."""
    return [planned.at(rung) for rung in range(len(planned.ladder) + 1)]


def words(planned: StagePlan) -> list[str]:
    return [rung.what for rung in planned.ladder]


# What a ladder is, whatever the recipe and the cluster are.


@some.composite
def stages(draw: Any) -> tuple[Stage, Cluster]:
    method = draw(some.sampled_from(["sft", "reward", "ppo", "kto", "grpo", "evaluate"]))
    # The first sizes that fit somewhere; a larger one on a laptop would be no plan.
    on = draw(some.sampled_from([MIXED, STAND_INS, POOR, LAPTOP]))
    sizes = ["tiny"] if on is LAPTOP else ["tiny", "Qwen/Qwen2.5-0.5B", SEVEN]
    model = draw(some.sampled_from(sizes))
    pins = pinned(
        micro_batch=draw(some.sampled_from([None, None, 2])),
        gradient_checkpointing=draw(some.sampled_from([None, None, True, False])),
        offload=None if on is LAPTOP else draw(some.sampled_from([None, None, "none"])),
        gpus=None if on is LAPTOP else draw(some.sampled_from([None, None, 8])),
    )
    keywords: dict[str, Any] = {"resources": pins}
    if method == "evaluate":
        pins = replace(pins, offload=None, gradient_checkpointing=None)
        return stage("evaluate", model, resources=pins), on
    keywords["global_batch"] = draw(some.sampled_from([16, 48, 64]))
    keywords["peft"] = draw(some.sampled_from([None, Peft(), Peft(quantization="nf4")]))
    if method in ("kto", "grpo"):
        roles = {"policy": model} if method == "kto" else {"policy": model, "reward_model": model}
        keywords["data"] = Data("/data.jsonl", rows=20_000, max_prompt_tokens=512)
        return Stage(method, method, roles, **keywords), on
    return stage(method, model, **keywords), on


def measure(before: StagePlan, after: StagePlan) -> int:
    """Which of the five measures was taken from one rung to the next."""
    if after.allocation.processes != before.allocation.processes:
        return 5
    if after.offload != before.offload:
        return 4
    sharding = [(each.zero_stage, not each.gather_for_generation) for each in (before, after)]
    if sharding[0] != sharding[1]:
        # Settings that offload may divide further, too.
        return 4 if after.offload != "none" and sharding[0] < sharding[1] else 3
    return 2 if after.gradient_checkpointing != before.gradient_checkpointing else 1


@settings(deadline=None, max_examples=60)
@given(stages())
def test_each_rung_has_the_same_batch_and_less_memory_or_another_measure(
    given_stage: tuple[Stage, Cluster],
) -> None:
    wanted, on = given_stage
    made = plan(recipe(wanted), on)
    planned = made.stages[0]
    assert planned.at(0) is planned
    assert len(planned.ladder) <= 20
    last = 0
    for before, after in zip(rungs(planned), rungs(planned)[1:], strict=False):
        taken = measure(before, after)
        peaks = before.estimate.peak.total, after.estimate.peak.total
        assert peaks[1] < peaks[0] or (peaks[1] == peaks[0] and taken > last)
        assert taken >= last
        last = taken
        if wanted.method != "evaluate":
            assert after.sequences_per_step == planned.sequences_per_step == wanted.global_batch
        if wanted.method == "kto":
            assert after.micro_batch >= 2
        pins = wanted.resources
        assert pins.micro_batch in (None, after.micro_batch)
        assert pins.offload in (None, after.offload)
        assert pins.gpus in (None, after.allocation.processes)
        if wanted.method != "evaluate":
            assert pins.gradient_checkpointing in (None, after.gradient_checkpointing)
    for rung in planned.ladder:
        node = made.cluster.partition(rung.allocation.partition).groups[0]
        assert rung.allocation.host_memory_gib <= node.memory_gib
        assert rung.same_allocation == (rung.allocation == planned.allocation)
    # Reading checks batches, DeepSpeed's configuration and the allocation of every rung.
    assert plan_from_json(plan_to_json(made)) == made


# What is on it, and in which order.


def test_the_measures_come_in_their_order_and_add_up() -> None:
    planned = plan_one(stage(model="Qwen/Qwen2.5-3B", resources=pinned(gpus=4)), cluster(FORTY))
    assert planned.zero_stage == 2 and not planned.gradient_checkpointing
    assert words(planned)[-4:] == [
        "gradient checkpointing",
        "ZeRO 3",
        "optimizer offloaded",
        "all offloaded",
    ]
    last = planned.at(len(planned.ladder))
    assert (last.micro_batch, last.gradient_checkpointing, last.zero_stage, last.offload) == (
        1,
        True,
        3,
        "all",
    )
    assert last.deepspeed is not None
    assert last.deepspeed["train_micro_batch_size_per_gpu"] == 1
    assert last.deepspeed["zero_optimization"]["offload_param"]["device"] == "cpu"


def test_the_micro_batch_is_halved_down_to_the_least_that_the_method_takes() -> None:
    large = stage(model="Qwen/Qwen2.5-0.5B", global_batch=12, resources=pinned(gpus=1))
    planned = plan_one(large)
    batches = [each.micro_batch for each in rungs(planned) if not each.gradient_checkpointing]
    assert batches == [12, 6, 3, 1]
    assert [each.accumulation for each in rungs(planned)][:4] == [1, 2, 4, 12]
    compared = Stage("kto", "kto", {"policy": "Qwen/Qwen2.5-0.5B"}, global_batch=64)
    compared = replace(compared, resources=pinned(gpus=1), data=Data("/d", rows=9))
    assert min(each.micro_batch for each in rungs(plan_one(compared))) == 2
    alone = replace(compared, train={"loss_type": "apo_zero_unpaired"})
    assert min(each.micro_batch for each in rungs(plan_one(alone))) == 1


def test_what_is_pinned_is_on_no_rung() -> None:
    resources = pinned(gpus=8, micro_batch=2, zero_stage=2, gradient_checkpointing=True)
    planned = plan_one(stage(model="Qwen/Qwen2.5-3B", resources=resources))
    assert words(planned) == ["optimizer offloaded"]
    resources = replace(resources, offload="none")
    planned = plan_one(stage(model="Qwen/Qwen2.5-3B", resources=resources))
    assert planned.ladder == ()
    assert climb(planned) == "nothing is left to try"


def test_a_reference_that_follows_the_policy_is_never_divided() -> None:
    follows = Stage("dpo", "dpo", {"policy": "Qwen/Qwen2.5-3B"}, global_batch=64)
    follows = replace(follows, data=Data("/d", rows=9), train={"sync_ref_model": True})
    every = rungs(plan_one(follows))
    assert len(every) > 1
    assert max(each.zero_stage for each in every) == 2
    pinned_there = replace(follows, resources=pinned(zero_stage=3))
    assert plan_one(pinned_there).zero_stage == 3


def test_offload_goes_on_in_the_same_job_only_where_that_has_the_host_memory() -> None:
    lean = plan_one(stage(resources=pinned(gpus=8)))
    offloaded = next(rung for rung in lean.ladder if rung.offload != "none")
    assert not offloaded.same_allocation
    assert offloaded.allocation.host_memory_gib > lean.allocation.host_memory_gib
    assert replace(
        offloaded.allocation, host_memory_gib=lean.allocation.host_memory_gib
    ) == lean.allocation  # fmt: skip
    ample = plan_one(stage(resources=pinned(gpus=8, host_memory_gib=900.0)))
    assert [rung.same_allocation for rung in ample.ladder] == [True] * len(ample.ladder)
    assert ample.ladder[-1].offload == "all"
    short = plan_one(stage(resources=pinned(gpus=8, host_memory_gib=100.0)))
    assert all(rung.offload == "none" for rung in short.ladder)


def test_more_gpus_are_twice_as_many_of_the_same_kind_in_another_job() -> None:
    planned = plan_one(stage(resources=pinned(offload="none")), cluster(FORTY))
    own = planned.allocation
    more = [rung for rung in planned.ladder if not rung.same_allocation]
    assert [rung.allocation.processes for rung in more] == [2 * own.processes, 4 * own.processes]
    assert {(rung.allocation.gpu, rung.allocation.partition) for rung in more} == {
        (own.gpu, own.partition)
    }
    assert all(rung.zero_stage == 3 and not rung.keeps_checkpoints for rung in more)
    assert climb(planned).endswith(
        f"; in a new job: {more[0].what}, {more[1].what}"
    ) and more[0].what == "16 × a100_40gb on 2 nodes"  # fmt: skip


def test_checkpoints_are_kept_until_states_are_divided_otherwise() -> None:
    planned = plan_one(stage(model="Qwen/Qwen2.5-3B", resources=pinned(gpus=4)), cluster(FORTY))
    kept = {rung.what: rung.keeps_checkpoints for rung in planned.ladder}
    assert kept["gradient checkpointing"]
    assert not kept["ZeRO 3"]
    assert not kept["optimizer offloaded"]


def test_an_evaluation_answers_fewer_at_a_time_and_a_program_has_no_ladder() -> None:
    judged = plan_one(stage("evaluate"))
    assert [each.micro_batch for each in rungs(judged)][:6] == [32, 16, 8, 4, 2, 1]
    program = Stage("own", "command", {}, command=Command(("true",)))
    whole = chain(SEVEN)
    done = replace(whole.stages[0], use=SEVEN, needs=())
    made = plan(recipe(done, *whole.stages[1:], program))
    assert made.stage("sft").ladder == made.stage("own").ladder == ()


def test_a_machine_without_gpus_has_smaller_batches_and_checkpointing_alone() -> None:
    for planned in plan(chain("tiny"), LAPTOP).stages:
        assert planned.ladder
        for rung in planned.ladder:
            assert (rung.zero_stage, rung.offload, rung.same_allocation) == (0, "none", True)


def test_no_stage_is_on_a_rung_that_its_ladder_has_not() -> None:
    planned = plan_one(stage())
    for rung in (-1, len(planned.ladder) + 1):
        with pytest.raises(IndexError):
            planned.at(rung)


def test_the_ladder_is_told_in_a_line() -> None:
    planned = plan_one(stage("ppo", "Qwen/Qwen2.5-1.5B", resources=pinned(gpus=2)), cluster(FORTY))
    assert climb(planned) == (
        "micro-batch 4 → 2 → 1, gradient checkpointing, generation in parts;"
        " in a new job: optimizer offloaded, all offloaded"
    )


# What an attempt on a rung says of its estimate.


def receipt(rung: int, gib: float, *, died: bool) -> Attempt:
    """An attempt whose torch reserved so much at most."""
    update = PhaseMeasurement({"device reserved": int(gib * GIB)}, 9, 0.5, 1.0)
    measured = Measurement({"update": update}, out_of_memory=died)
    return Attempt(
        number=rung + 1,
        token=os.urandom(8).hex(),
        job_id="7",
        host="node",
        processes=8,
        started=1e9,
        ended=1e9 + rung,
        outcome="error" if died else "complete",
        peak_bytes=measured.peak_bytes,
        measured=measured,
        rung=rung,
    )


def test_each_attempt_is_held_against_its_rung_and_the_next_plan_has_learned() -> None:
    wanted = stage("sft", "Qwen/Qwen2.5-3B", resources=pinned(gpus=8, zero_stage=3))
    made = plan(recipe(wanted), cluster(FORTY))
    planned = made.stages[0]
    died = observe(made, planned, receipt(0, 1.2 * peak(planned) / GIB, died=True))
    went = observe(made, planned, receipt(1, 1.2 * peak(planned.at(1)) / GIB, died=False))
    assert died is not None and went is not None
    assert (died.predicted, died.at_least) == (peak(planned), True)
    assert (went.predicted, went.at_least) == (peak(planned.at(1)), False)
    assert peak(planned.at(1)) < peak(planned)
    assert died.kind == went.kind
    after = again(wanted, Evidence((died, went)))
    assert after.calibration.runs == 2
    # Two that agree go two thirds of the way.
    assert after.calibration.factor == pytest.approx(1.2 ** (2 / 3), abs=0.02)
    assert after.margin >= planned.margin


def test_a_rung_of_another_kind_is_held_against_that_kinds_formula() -> None:
    wanted = stage("sft", SEVEN, resources=pinned(gpus=8))
    made = plan(recipe(wanted), cluster(FORTY))
    planned = made.stages[0]
    number = next(i for i, rung in enumerate(planned.ladder, 1) if rung.offload != "none")
    found = observe(made, planned, receipt(number, 20.0, died=False))
    assert found is not None
    assert found.kind.offload
    assert found.formula == fingerprint(found.kind) != planned.calibration.formula
    assert planned.at(number).calibration.kind == str(found.kind)


def test_an_attempt_on_a_rung_that_the_plan_has_not_says_nothing() -> None:
    made = plan(recipe(stage()), MIXED)
    bare = replace(made.stages[0], ladder=())
    assert observe(made, bare, receipt(0, 20.0, died=False)) is not None
    assert observe(made, bare, receipt(1, 20.0, died=False)) is None


def peak(planned: StagePlan) -> int:
    return max(phase.reserved for phase in planned.estimate.phases)


def again(wanted: Stage, past: Evidence) -> StagePlan:
    given_recipe: Recipe = recipe(wanted)
    made = make_plan(given_recipe, cluster(FORTY), shapes, trl_version="1.16.0", evidence=past)
    return made.stages[0]
