"""What a plan says of time, disk and alternatives, and what it derives from that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.cluster.availability import Availability, FreeNode, Start
from launcher.cluster.types import Cluster, Gpu
from launcher.memory.types import GIB
from launcher.plan.limits import ROOM
from launcher.plan.make import make_plan
from launcher.plan.objective import Objective, rank
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Data, Peft, Recipe, Stage
from tests.unit.planning import (
    FORTY,
    LAPTOP,
    MIXED,
    SPARE,
    chain,
    cluster,
    partition,
    pinned,
    plan,
    plan_one,
    recipe,
    shapes,
    stage,
)

KNOWN = Data("/data.jsonl", rows=20_000, mean_tokens=400, max_prompt_tokens=512)


def known(size: str = "7B") -> Recipe:
    return chain(f"Qwen/Qwen2.5-{size}", data=KNOWN)


def made(given: Recipe, objective: Objective, free: Availability | None = None) -> Plan:
    return make_plan(
        given, MIXED, shapes, trl_version="1.16.0", objective=objective, availability=free
    )


def predicted(each: StagePlan) -> float:
    assert each.prediction is not None and each.prediction.seconds is not None
    return each.prediction.seconds


def test_every_stage_states_its_time_and_what_it_writes() -> None:
    for each in plan(known()).stages:
        found = each.prediction
        assert found is not None and found.mfu is not None and found.gpu_hours is not None
        assert 0 < found.mfu < 0.6
        assert found.tokens_per_second > 0
        assert found.gpu_hours == pytest.approx(predicted(each) / 3600 * each.allocation.processes)
        assert each.disk is not None
        if each.stage.method != "evaluate":
            # At least the 16-bit weights, with a float32 master and two moments.
            assert each.disk.checkpoint_bytes >= 14 * 6.5e9
            assert each.disk.total_bytes > each.disk.checkpoint_bytes * each.disk.checkpoints
            assert each.save_steps is not None and found.steps is not None
            assert 1 <= each.save_steps <= found.steps


def test_the_time_limit_is_the_prediction_with_room() -> None:
    for each in plan(known()).stages:
        minutes = each.allocation.time_minutes
        assert minutes % 15 == 0
        assert minutes >= predicted(each) / 60 * ROOM
        assert minutes <= predicted(each) / 60 * ROOM + 75


def test_the_time_limit_is_never_above_the_partitions() -> None:
    short = cluster(replace(FORTY, max_time_minutes=20))
    each = plan_one(stage(data=KNOWN), short)
    assert each.allocation.time_minutes == 20
    assert predicted(each) > 20 * 60
    pins = pinned(time_minutes=17)
    assert plan_one(stage(data=KNOWN, resources=pins)).allocation.time_minutes == 17


@pytest.mark.parametrize(
    ("data", "doubt"),
    [
        (Data("/d.jsonl", mean_tokens=400), "the rows of the data are not known"),
        (Data("/d.jsonl", rows=100), "the lengths of the data are not known"),
    ],
)
def test_what_is_not_known_is_said_and_takes_the_partitions_limit(data: Data, doubt: str) -> None:
    each = plan_one(stage(data=data))
    assert each.prediction is not None
    assert doubt in each.prediction.doubt
    assert (each.prediction.seconds is None) == (data.rows is None)
    assert each.allocation.time_minutes == 1440


def test_a_type_that_nobody_described_makes_no_time_limit() -> None:
    odd = cluster(partition("odd", "zx9"), gpus={"zx9": Gpu(79.0)})
    each = plan_one(stage(data=KNOWN), odd)
    assert each.prediction is not None
    assert each.prediction.doubt == "the speed of zx9 is not known"
    assert each.allocation.time_minutes == 1440
    stated = Gpu(79.0, tflops_half=500, bandwidth_gbs=2000, attainable_mfu=0.4)
    described = plan_one(stage(data=KNOWN), replace(odd, gpus={"zx9": stated}))
    assert described.prediction is not None and not described.prediction.doubt


def test_on_processors_no_prediction_is_trusted() -> None:
    each = plan_one(stage(model="tiny", data=KNOWN), LAPTOP)
    assert each.prediction is not None
    assert "the processors" in each.prediction.doubt
    assert each.prediction.mfu is None
    assert each.advice == ()


def test_the_signal_leaves_time_for_the_slowest_step_and_a_checkpoint() -> None:
    each = plan(known("72B")).stage("ppo")
    assert each.prediction is not None and each.disk is not None
    needs = each.prediction.slowest_step_seconds + each.disk.save_seconds + 60
    assert needs <= each.allocation.signal_lead_s < needs + 10
    short = plan_one(stage(data=KNOWN, resources=pinned(time_minutes=3)))
    assert short.allocation.signal_lead_s == 90


def test_a_stage_says_what_a_small_change_would_buy() -> None:
    each = plan(known()).stage("sft")
    assert any("LoRA" in line and "1 × a100_40gb" in line for line in each.advice)
    half = plan_one(stage(data=replace(KNOWN, mean_tokens=1000)))
    assert any("max_length: 512" in line for line in half.advice)
    whole = plan_one(stage(data=KNOWN, resources=pinned(gradient_checkpointing=False, gpus=8)))
    assert whole.offload == "none" or any("checkpointing" in line for line in whole.advice)
    assert plan_one(stage("evaluate", data=KNOWN)).advice == ()


def test_sft_of_7b_with_an_adapter_fits_one_24_gb_gpu() -> None:
    for name, memory in (("rtx_4090", 23.5), ("a10g", 22.0)):
        small = cluster(partition("small", name), gpus={name: Gpu(memory)})
        each = plan_one(stage(peft=Peft(), data=KNOWN, resources=pinned(gpus=1)), small)
        assert each.estimate.peak.total <= memory * GIB * (1 - each.margin)
        assert each.offload == "none"
        assert each.zero_stage == 0


def test_full_training_of_70b_spans_nodes_with_zero_3() -> None:
    each = plan_one(stage(model="meta-llama/Llama-3.1-70B", data=KNOWN))
    assert each.allocation.nodes > 1
    assert each.zero_stage == 3
    assert each.offload == "none"
    assert each.deepspeed is not None and each.deepspeed["bf16"] == {"enabled": True}


def test_alternatives_state_their_hours() -> None:
    rejected = plan(known()).stage("ppo").rejected
    fitting = [line for line in rejected if line.gpu_hours is not None]
    assert len(fitting) >= 2
    assert all(line.hours for line in fitting)
    assert any(line.hours is None and "GiB" in line.why for line in rejected)


def test_each_objective_is_best_at_what_it_says() -> None:
    objectives: tuple[Objective, ...] = ("cost", "time", "gpus")
    found = {each: made(known(), each).stage("sft") for each in objectives}
    times = {each: predicted(planned) for each, planned in found.items()}
    assert times["time"] == min(times.values())
    assert times["time"] < times["cost"]
    gpus = {each: planned.allocation.processes for each, planned in found.items()}
    assert gpus["gpus"] == min(gpus.values())
    assert gpus["gpus"] < gpus["time"]
    assert all(planned.offload == "none" for planned in found.values())


def test_waiting_and_large_cards_have_a_cost() -> None:
    alone, together = (rank("cost", n, 1.0, 40, h, 0) for n, h in ((1, 100.0), (8, 13.0)))
    assert together < alone
    small, large = (rank("cost", 4, 1.0, gib, 10.0, 0) for gib in (40, 80))
    assert small < large
    near = rank("time", 4, 1.0, 80, 10.0, 0)
    assert near < rank("time", 32, 1.0, 80, 9.5, 0)
    assert near > rank("time", 8, 1.0, 80, 6.0, 0)


EMPTY_H100 = Availability(
    free=(FreeNode("eighty", "h100", 8), FreeNode("eighty", "h100", 8)),
    starts=(
        Start("forty", "a100_40gb", 1, 8, 7200.0),
        Start("any-spare", "a100_40gb", 1, 8, None),
    ),
)


def test_the_objective_start_takes_what_is_free_now() -> None:
    found = made(known(), "start", EMPTY_H100)
    assert found.objective == "start"
    assert found.stages[0].allocation.partition == "eighty"
    later = [line.why for line in found.stages[0].rejected]
    assert any("starts 120 minutes later" in why for why in later)
    # The others begin when it is over, whatever is free now.
    assert found.stage("ppo").allocation.gpu == "a100_40gb"
    assert "rm, ppo, eval" in found.notes[0]


def test_the_objective_start_says_so_where_nobody_knows_what_is_free() -> None:
    found = made(known(), "start")
    assert found.notes == ("What is free now is not known: planned by cost.",)
    assert found.stages[0].allocation == plan(known()).stages[0].allocation


def test_a_larger_job_waits_as_long_as_the_nearest_that_was_asked_about() -> None:
    free = Availability(
        (FreeNode("p", "g", 3),),
        (Start("p", "g", 1, 8, 60.0), Start("p", "g", 4, 8, 600.0)),
    )
    assert free.wait_s("p", "g", 1, 2) == 0
    assert free.wait_s("p", "g", 1, 4) == 60
    assert free.wait_s("p", "g", 3, 8) == 600
    assert free.wait_s("p", "g", 8, 8) == 600
    assert free.wait_s("q", "g", 1, 1) == 24 * 3600


def test_a_preempted_partition_is_the_last_of_equals() -> None:
    for both in ((SPARE, FORTY), (FORTY, SPARE)):
        each = plan_one(stage(data=KNOWN), cluster(*both))
        assert each.allocation.partition == "forty"
    alone = plan_one(stage(data=KNOWN), cluster(SPARE))
    assert alone.allocation.partition == "any-spare"


def test_a_network_that_is_slow_keeps_a_stage_on_one_node() -> None:
    def nodes(gbits: float) -> int:
        given: Cluster = cluster(FORTY, network_gbits=gbits)
        only = stage(data=KNOWN, resources=pinned(zero_stage=3))
        return make_plan(
            recipe(only), given, shapes, trl_version="1.16.0", objective="time"
        ).stages[0].allocation.nodes  # fmt: skip

    assert nodes(10) == 1
    assert nodes(3200) > 1


def test_what_is_chosen_fits_with_its_margin_whatever_the_objective() -> None:
    objectives: tuple[Objective, ...] = ("cost", "time", "gpus", "start")
    for objective in objectives:
        for each in made(known(), objective).stages:
            usable = (each.allocation.gpu_memory_gib or 0) * GIB * (1 - each.margin)
            assert each.estimate.peak.total <= usable


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(
    "method", [m.name for m in METHODS.values() if m.result not in ("report", None)]
)
def test_every_training_is_predicted(method: str, adapter: bool) -> None:
    models = dict.fromkeys(METHODS[method].required_roles, "Qwen/Qwen2.5-1.5B")
    peft = Peft() if adapter else None
    each = plan_one(Stage(method, method, models, data=KNOWN, peft=peft, global_batch=64))
    assert each.prediction is not None and each.prediction.mfu is not None
    assert 0.03 < each.prediction.mfu < 0.5
    assert not each.prediction.doubt
    online = METHODS[method].online
    slowest = each.prediction.slowest_step_seconds
    assert (slowest > each.prediction.step_seconds) == (online and method == "ppo")
