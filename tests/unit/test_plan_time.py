"""The step-time model beside public measurements, and how it moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.memory.types import Settings
from launcher.models.types import ModelShape
from launcher.plan.duration import Saves, duration
from launcher.plan.speed import speed_of
from launcher.plan.step_time import step_time
from launcher.plan.work import padded, work_of
from launcher.recipe.types import Data, Peft, Stage
from tests.unit.planning import shapes, stage

QWEN_7B = ModelShape("qwen-7b", 32, 4096, 11008, 32, 32, 128, 151_936, 32_768)
QWEN_2B = ModelShape("qwen-1.8b", 24, 2048, 5504, 16, 16, 128, 151_936, 32_768)


def mpt(layers: int, hidden: int) -> ModelShape:
    heads = hidden // 128
    return ModelShape(
        "mpt", layers, hidden, 4 * hidden, heads, heads, 128, 50_368, 65_536,
        tied_embeddings=True, gated_mlp=False,
    )  # fmt: skip


def nodes_of(gpu: str, mfu: float | None = None, gbits: float = 1600.0) -> Cluster:
    group = NodeGroup(nodes=16, cpus=128, memory_gib=1000.0, gpu=gpu, gpus=8)
    return Cluster(
        "lab",
        (Partition("p", (group,)),),
        gpus={gpu: Gpu(attainable_mfu=mfu)},
        network_gbits=gbits,
    )


def seconds(
    shape: ModelShape,
    length: int,
    cluster: Cluster,
    peft: Peft | None = None,
    **keywords: Any,
) -> float:
    """Of one optimizer step of SFT on full rows."""
    settings = Settings(
        **{"gradient_checkpointing": True, "processes_per_node": 1, "micro_batch": 1, **keywords}
    )
    given = Stage(
        "sft",
        "sft",
        {"model": "m"},
        data=Data("d", rows=1000, mean_tokens=length),
        peft=peft,
        train={"max_length": length},
    )
    batch = settings.processes * settings.micro_batch * settings.accumulation
    group = cluster.partitions[0].groups[0]
    speed = speed_of(cluster, group, settings.processes_per_node, "bfloat16")
    return step_time(work_of(given, {"model": shape}, batch), settings, speed).seconds


# QwenLM/Qwen README, "Profiling of Memory and Speed": seconds an iteration of 8 × 1 rows on A100s.
QWEN = [
    *(("lora", QWEN_7B, n, s) for n, s in ((256, 1.2), (1024, 2.8), (2048, 5.2), (8192, 21.3))),
    *(("qlora", QWEN_7B, n, s) for n, s in ((256, 3.0), (2048, 7.0), (4096, 11.6), (8192, 22.3))),
    *(("full", QWEN_7B, n, s) for n, s in ((256, 4.0), (512, 4.0), (1024, 4.5))),
    *(("full", QWEN_2B, n, s) for n, s in ((256, 2.1), (2048, 2.3), (4096, 2.8))),
]


@pytest.mark.parametrize(("kind", "shape", "length", "measured"), QWEN)
def test_trainings_of_qwen_are_predicted_within_a_quarter(
    kind: str, shape: ModelShape, length: int, measured: float
) -> None:
    peft = {"lora": Peft(), "qlora": Peft(quantization="nf4"), "full": None}[kind]
    sharded: dict[str, Any] = {"zero_stage": 3} if kind == "full" else {}
    if kind == "full" and shape is QWEN_7B:
        sharded |= {"processes": 2, "processes_per_node": 2}
    found = seconds(shape, length, nodes_of("a100_80gb"), peft, accumulation=8, **sharded)
    assert found == pytest.approx(measured, rel=0.25)


# mosaicml/llm-foundry, scripts/train/benchmarking: tokens a second and GPU on full rows, in a stack
# with fused kernels, which reach 0.68 of an A100's peak and 0.50 of an H100's.
FOUNDRY = [
    ("a100_80gb", (32, 4096), 2048, 8, 6, 2, False, 4641),
    ("a100_80gb", (32, 4096), 4096, 8, 16, 2, True, 3684),
    ("a100_80gb", (40, 5120), 2048, 8, 2, 3, False, 2262),
    ("a100_80gb", (48, 7168), 2048, 8, 3, 21, True, 916),
    ("a100_80gb", (24, 2048), 2048, 8, 14, 4, False, 20513),
    ("a100_80gb", (24, 1536), 2048, 8, 24, 2, False, 32434),
    ("a100_80gb", (80, 8192), 2048, 64, 8, 4, True, 410),
    ("a100_80gb", (80, 8192), 2048, 32, 2, 16, True, 373),
    ("a100_40gb", (80, 8192), 2048, 64, 2, 1, True, 276),
    ("a100_40gb", (32, 4096), 2048, 64, 18, 1, True, 3665),
    ("h100_80gb", (32, 4096), 2048, 8, 6, 1, False, 10643),
    ("h100_80gb", (48, 7168), 2048, 8, 3, 21, True, 2002),
    ("h100_80gb", (80, 8192), 2048, 64, 8, 4, True, 1039),
    ("h100_80gb", (24, 2048), 2048, 8, 14, 1, False, 45455),
]


@pytest.mark.parametrize(
    ("gpu", "size", "length", "gpus", "micro", "accumulation", "checkpointing", "measured"), FOUNDRY
)
def test_sharded_trainings_are_predicted_within_a_quarter(
    gpu: str,
    size: tuple[int, int],
    length: int,
    gpus: int,
    micro: int,
    accumulation: int,
    checkpointing: bool,
    measured: float,
) -> None:
    found = seconds(
        mpt(*size),
        length,
        nodes_of(gpu, mfu=0.68 if gpu.startswith("a") else 0.50),
        processes=gpus,
        processes_per_node=8,
        zero_stage=3,
        micro_batch=micro,
        accumulation=accumulation,
        gradient_checkpointing=checkpointing,
    )
    assert micro * accumulation * length / found == pytest.approx(measured, rel=0.26)


def ppo_seconds(**keywords: Any) -> float:
    settings = Settings(**{"processes": 16, "processes_per_node": 8, "zero_stage": 3, **keywords})
    given = stage("ppo", global_batch=settings.processes * settings.accumulation)
    found = {role: shapes("Qwen/Qwen2.5-7B") for role in given.models}
    cluster = nodes_of("a100_40gb", gbits=200.0)
    speed = speed_of(cluster, cluster.partitions[0].groups[0], 8, "bfloat16")
    return step_time(work_of(given, found, given.global_batch or 0), settings, speed).slowest


def test_weights_that_are_gathered_for_each_token_cost_most_of_a_rollout() -> None:
    assert ppo_seconds(gather_for_generation=False) > 5 * ppo_seconds()


def test_a_rollout_is_written_as_fast_as_memory_is_read() -> None:
    # 512 tokens of a 7B model: 14.2 GiB read for each at 1.1 TB/s, or 28 blocks of 0.8 ms.
    alone = ppo_seconds(processes=1, processes_per_node=1, zero_stage=0)
    assert 512 * 28 * 0.0008 < alone < 512 * 0.03 + 10


def test_offload_is_bound_by_pcie_and_processors() -> None:
    plain = seconds(QWEN_7B, 1024, nodes_of("a100_40gb"), processes=8, processes_per_node=8,
                    zero_stage=3)  # fmt: skip
    offloaded = seconds(QWEN_7B, 1024, nodes_of("a100_40gb"), processes=8, processes_per_node=8,
                        zero_stage=3, offload="all")  # fmt: skip
    # 7.7 billion parameters on one node's processors, at 3 billion a second.
    assert offloaded - plain > 7.7 / 3


def test_a_slow_network_is_felt_between_nodes_only() -> None:
    def on(gbits: float, processes: int) -> float:
        cluster = nodes_of("a100_40gb", gbits=gbits)
        return seconds(
            QWEN_7B, 1024, cluster, processes=processes, processes_per_node=8, zero_stage=3
        )

    assert on(25, 8) == on(1600, 8)
    assert on(25, 16) > 3 * on(1600, 16)


def test_attention_grows_with_the_square_of_the_length() -> None:
    long, short = (seconds(QWEN_7B, n, nodes_of("a100_80gb")) for n in (32_768, 4096))
    assert long > 1.3 * 8 * short


def test_checkpointing_costs_a_forward_pass() -> None:
    with_it, without = (
        seconds(QWEN_7B, 4096, nodes_of("a100_80gb"), gradient_checkpointing=on)
        for on in (True, False)
    )
    assert with_it / without == pytest.approx(4 / 3, rel=0.06)


def test_rows_are_padded_to_the_longest_of_their_micro_batch() -> None:
    assert padded(400, 1024, 1) == 400
    assert padded(400, 1024, 2) == 600
    assert padded(400, 1024, 64) == 1024
    assert padded(None, 1024, 1) == 1024


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        # ⌊20000 ÷ (64 × 2)⌋ × 2 × 3 a pass, as the trainer counts.
        ({"num_mini_batches": 2, "num_ppo_epochs": 3, "num_train_epochs": 1}, 936),
        ({"num_train_epochs": 2}, 312 * 4 * 2),
        ({"max_steps": 77}, 77),
    ],
)
def test_steps_of_ppo_are_counted_as_its_trainer_counts(train: dict[str, Any], steps: int) -> None:
    given = stage("ppo", train=train)
    found = {role: shapes("tiny") for role in given.models}
    assert work_of(given, found, 64).steps == steps


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({}, 3 * 313),
        ({"num_train_epochs": 0.5}, 157),
        ({"max_steps": 10}, 10),
        # 20,000 rows of 400 tokens make 7,813 of 1,024.
        ({"packing": True, "num_train_epochs": 1}, 123),
    ],
)
def test_steps_of_sft_are_counted_as_transformers_counts(train: dict[str, Any], steps: int) -> None:
    given = stage(train=train, data=Data("d", rows=20_000, mean_tokens=400))
    work = work_of(given, {"model": shapes("tiny")}, 64)
    assert (work.steps, work.counted, work.measured) == (steps, True, True)


def test_rows_that_nobody_knows_are_said_to_be_unknown() -> None:
    given = stage(data=Data("d"))
    assert not work_of(given, {"model": shapes("tiny")}, 64).counted
    stated = replace(given, train={"max_steps": 5})
    assert work_of(stated, {"model": shapes("tiny")}, 64).counted


def test_an_adapters_checkpoint_is_small_and_a_full_one_holds_the_optimizer() -> None:
    sizes = []
    for peft in (Peft(), None):
        given = stage(peft=peft)
        work = work_of(given, {"model": shapes("Qwen/Qwen2.5-7B")}, 64)
        settings = Settings(processes=8, processes_per_node=8, zero_stage=3, micro_batch=8)
        cluster = nodes_of("a100_40gb")
        speed = speed_of(cluster, cluster.partitions[0].groups[0], 8, "bfloat16")
        found = duration(work, settings, speed, preemptible=False)
        sizes.append(found.saves.bytes)
        assert found.model_bytes > 15e9
    assert sizes[0] < 1e9
    assert sizes[1] == pytest.approx(14 * 7.6e9, rel=0.01)


def saves(preemptible: bool = True, **train: Any) -> Saves:
    given = stage(train=train, data=Data("d", rows=500_000, mean_tokens=400))
    work = work_of(given, {"model": shapes("Qwen/Qwen2.5-7B")}, 64)
    settings = Settings(processes=8, processes_per_node=8, zero_stage=3, micro_batch=8)
    cluster = nodes_of("a100_40gb")
    speed = speed_of(cluster, cluster.partitions[0].groups[0], 8, "bfloat16")
    return duration(work, settings, speed, preemptible=preemptible).saves


def test_checkpoints_come_more_often_where_jobs_are_preempted() -> None:
    often, seldom = saves(True).steps, saves(False).steps
    assert often is not None and seldom is not None
    assert often < seldom
    assert saves(save_steps=123).steps == 123
    assert saves(save_strategy="epoch").steps is None


def test_two_checkpoints_are_kept_at_least_and_one_more_is_being_written() -> None:
    assert [saves(save_total_limit=limit).kept for limit in (1, 2, 4)] == [3, 3, 5]
    assert saves().kept == saves(save_strategy="epoch").kept == 3
    assert saves(save_steps=100, load_best_model_at_end=True).kept == 4
    # All of them, and never more than there will be.
    assert saves(save_steps=1000, save_total_limit=None).kept == 24
    assert saves(save_steps=12_000).kept == 2
