"""Where vLLM runs: beside the trainers, on GPUs of its own beside them, or on a node of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.errors import DoesNotFit, UsageError
from launcher.memory.estimate import estimate
from launcher.memory.server import server_memory
from launcher.memory.types import GIB
from launcher.models.find import shape_of
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.plan.types import StagePlan
from launcher.recipe.types import Data, Peft, Stage
from launcher.scheduler import sbatch
from tests.unit.planning import (
    EIGHTY,
    FORTY,
    LAPTOP,
    MIXED,
    cluster,
    partition,
    pinned,
    plan,
    plan_one,
    recipe,
    settings,
)
from tests.unit.running import request

SMALL, SEVEN, LARGE = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-72B"
SERVER = {"use_vllm": True, "vllm_mode": "server"}
ONE_GPU_NODES = cluster(partition("ones", "h100"))


def grpo(model: str = SEVEN, **keywords: Any) -> Stage:
    train = {"num_generations": 8, "max_completion_length": 512, **keywords.pop("train", {})}
    keywords.setdefault("data", Data("/data.jsonl", rows=20_000, max_prompt_tokens=512))
    keywords.setdefault("global_batch", 64)
    return Stage("grpo", "grpo", {"policy": model}, train=train, **keywords)


def served(model: str = SEVEN, on: Any = MIXED, **pins: Any) -> StagePlan:
    train = {**SERVER, **pins.pop("train", {})}
    return plan_one(grpo(model, train=train, resources=pinned(**pins)), on)


def test_a_stage_without_a_server_asks_for_none() -> None:
    allocation = plan_one(grpo()).allocation
    assert (allocation.server_gpus, allocation.server_apart) == (0, False)
    assert allocation.all_tasks == allocation.processes


def test_a_server_takes_the_fewest_gpus_that_hold_it_on_the_trainers_node() -> None:
    planned = served(SMALL, gpus=4, gpu="a100_40gb")
    allocation = planned.allocation
    assert (allocation.processes, allocation.server_gpus, allocation.server_apart) == (4, 1, False)
    assert (allocation.all_nodes, allocation.all_tasks_per_node) == (1, 5)
    # The trainers' world is theirs alone.
    assert planned.micro_batch * planned.accumulation * 4 == 64
    assert planned.server is not None and planned.server.total < 0.9 * 39.5 * GIB


def test_trainers_that_fill_their_nodes_have_the_server_on_another_with_all_its_gpus() -> None:
    planned = served(gpus=16, gpu="h100")
    allocation = planned.allocation
    assert (allocation.nodes, allocation.tasks_per_node) == (2, 8)
    assert allocation.server_apart
    # The largest number of the node's GPUs that 28 heads, 4 of keys and values, divide by.
    assert allocation.server_gpus == 4
    assert (allocation.all_nodes, allocation.all_tasks_per_node, allocation.processes) == (3, 8, 16)


def test_gpu_hours_count_the_servers_gpus() -> None:
    planned = served(SMALL, gpus=4, server_gpus=2, gpu="h100")
    found = planned.prediction
    assert found is not None and found.gpu_hours is not None and found.seconds is not None
    assert found.gpu_hours == pytest.approx(6 * found.seconds / 3600)


def test_the_batch_script_asks_for_both_and_names_no_node() -> None:
    """TRL's own multi-node script splits nodes with --nodelist and waits on the server for ever."""
    allocation = served(gpus=16, gpu="h100").allocation
    text = sbatch.text(request(allocation=allocation, stage="grpo"))
    assert "#SBATCH --nodes=3" in text and "#SBATCH --ntasks-per-node=8" in text
    assert "gpu:h100:8" in text
    assert text.count("srun ") == 1 and "--distribution=block" in text
    for trap in ("--nodelist", "SLURM_PROCID", "server_ip", "wait\n", "&\n"):
        assert trap not in text
    assert "--distribution" not in sbatch.text(request())


@pytest.mark.parametrize("pins", [{"gpus": 4}, {"gpus": 16}])
def test_a_plan_with_a_server_reads_back_as_it_was(pins: dict[str, int]) -> None:
    made = plan(recipe(grpo(train=SERVER, resources=pinned(gpu="h100", **pins))))
    assert plan_from_json(plan_to_json(made)) == made
    one = made.stages[0]
    for wrong in (
        replace(one.allocation, server_gpus=0, server_apart=False),
        replace(one.allocation, server_gpus=9, server_apart=True, tasks_per_node=8, nodes=2),
    ):
        with pytest.raises(UsageError, match="contradicts itself"):
            plan_from_json(plan_to_json(replace(made, stages=(replace(one, allocation=wrong),))))


@pytest.mark.parametrize("gpus", [3, 7])
def test_layers_must_divide_by_a_servers_gpus(gpus: int) -> None:
    """28 heads do by 7, their 4 of keys and values do not."""
    why = rf"server_gpus: the 28 attention heads, 4 of keys .* do not divide by {gpus} GPUs"
    with pytest.raises(UsageError, match=why) as at:
        served(server_gpus=gpus)
    assert at.value.hint is not None and "4" in at.value.hint


def test_trainers_that_leave_no_room_for_the_server_are_told_so() -> None:
    with pytest.raises(UsageError, match="leave no room for the vLLM server") as at:
        served(nodes=4, gpu="h100")
    assert at.value.hint is not None and "come on top of `gpus`" in at.value.hint


def test_a_server_that_no_node_holds_is_named() -> None:
    small = cluster(partition("v", "v100"))
    with pytest.raises(DoesNotFit, match=r"no node holds the vLLM server of .*72B"):
        plan_one(
            grpo(LARGE, train=SERVER, dtype="float32"),
            small,
        )


def test_a_larger_model_needs_more_of_a_servers_gpus() -> None:
    shape, stage = shape_of(LARGE), grpo(LARGE, train=SERVER)
    alone, together = (server_memory(stage, shape, gpus) for gpus in (1, 8))
    assert alone.items["weights"] == 2 * shape.parameters
    assert together.items["weights"] * 8 >= alone.items["weights"] > together.items["weights"] * 7
    assert alone.total > 79.6 * GIB > together.total
    # Of 1024 tokens, in 80 layers of 8 heads, each GPU with a head of its own.
    assert together.items["kv cache"] == 16 * 1024 * 2 * 80 * 8 * 128 * 2 // 8


def test_without_gpus_the_server_is_one_more_process() -> None:
    short = {**SERVER, "max_completion_length": 16}
    data = Data("/data.jsonl", rows=96, max_prompt_tokens=64)
    tiny = grpo("tiny", train=short, data=data, dtype="float32")
    made = plan_one(tiny, LAPTOP).allocation
    assert (made.processes, made.server_gpus, made.all_tasks_per_node) == (1, 1, 2)
    with pytest.raises(UsageError, match="without GPUs the server is one process"):
        plan_one(replace(tiny, resources=pinned(server_gpus=2)), LAPTOP)


def test_a_server_writes_with_its_own_gpus() -> None:
    slow = served(SMALL, gpus=4, server_gpus=1, gpu="h100").prediction
    fast = served(SMALL, gpus=4, server_gpus=2, gpu="h100").prediction
    assert slow is not None and fast is not None
    assert fast.slowest_step_seconds <= slow.slowest_step_seconds


# In the trainers' processes


def colocated(on: Any = MIXED, model: str = SEVEN, **keywords: Any) -> StagePlan:
    train = {"use_vllm": True, **keywords.pop("train", {})}
    return plan_one(grpo(model, train=train, resources=pinned(**keywords)), on)


def test_a_share_that_does_not_hold_the_model_is_refused_with_one_that_does() -> None:
    with pytest.raises(UsageError, match=r"vllm_gpu_memory_utilization: 0.3 of 39.5 GiB") as at:
        colocated(cluster(FORTY), gpus=8)
    assert at.value.hint is not None and "raise it to 0.4" in at.value.hint
    # A larger card's share does.
    assert colocated(cluster(EIGHTY), gpus=8).allocation.gpu == "h100"


@pytest.mark.parametrize(
    ("parts", "gpus", "why"),
    [(3, 3, "28 attention heads"), (4, 2, "2 processes a node are no whole groups of 4")],
)
def test_tensor_parallelism_divides_heads_and_the_processes_of_a_node(
    parts: int, gpus: int, why: str
) -> None:
    with pytest.raises(UsageError, match=f"vllm_tensor_parallel_size: .*{why}"):
        plan_one(
            grpo(
                global_batch=48,
                train={"use_vllm": True, "vllm_tensor_parallel_size": parts},
                resources=pinned(gpus=gpus),
            )
        )


def test_each_method_has_the_share_that_trl_gives_it() -> None:
    at = settings(device_bytes=80 * GIB)
    shapes = {"policy": shape_of(SMALL)}
    for method, share in (("grpo", 0.3), ("rloo", 0.3), ("online_dpo", 0.55)):
        stage = replace(grpo(SMALL, train={"use_vllm": True}), method=method)
        found = estimate(stage, shapes, at)
        assert found.peak.items["vllm"] == pytest.approx(share * 80 * GIB, rel=1e-6)


def test_zero_3_hands_weights_over_one_by_one_but_with_adapters_whole() -> None:
    at = settings(processes=8, processes_per_node=8, zero_stage=3)
    shapes = {"policy": shape_of(SEVEN)}

    def rollout(stage: Stage) -> int:
        found = estimate(stage, shapes, at)
        phase = next(phase for phase in found.phases if phase.name == "rollout")
        return phase.items.get("gathered weights", 0) // GIB

    assert rollout(grpo(train=SERVER)) < 8
    assert rollout(grpo(train=SERVER, peft=Peft())) == 14
    # And nothing that generates in parts is planned, which vLLM cannot.
    assert served(gpus=8, gpu="h100", zero_stage=3).gather_for_generation
