"""Estimators of libraries that the training environment has: their own functions are called."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.memory_rows.case import Case


def accelerate(cases: Sequence[Case]) -> list[float | None]:
    """`accelerate estimate-memory`: the largest of the parts it names for training with Adam.

    It knows neither batch, length, adapters nor sharding. Of models in 4 or 8 bits it states the
    size of the weights only.
    """
    from accelerate.commands.estimate import estimate_training_usage

    def one(case: Case) -> float:
        size = 4 * case.shapes["model"].parameters
        base = case.stack.base
        if base != "dense":
            return size / (4 if base == "int8" else 8)
        usage = estimate_training_usage(size, case.stack.weights)
        return float(max(usage.values()))

    return [one(case) for case in cases]


def deepspeed(cases: Sequence[Case]) -> list[float | None]:
    """`estimate_zero{2,3}_model_states_mem_needs`: model states, without activations.

    Stage 3 for what is sharded whole (ZeRO 3, FSDP), else stage 2, with what really trains counted
    as all parameters, since the functions have no other.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    def one(case: Case) -> float:
        shape, settings = case.shapes["model"], case.settings
        nodes = -(-settings.processes // settings.processes_per_node)
        place = {"num_gpus_per_node": settings.processes_per_node, "num_nodes": nodes}
        offload = settings.offload != "none"
        if settings.zero_stage == 3:
            largest = max(shape.embedding_parameters, shape.layer_parameters)
            _, gpu, _ = estimate_zero3_model_states_mem_needs(
                shape.parameters,
                largest,
                cpu_offload=offload,
                cpu_offload_params=settings.offload == "all",
                **place,
            )
        else:
            _, gpu = estimate_zero2_model_states_mem_needs(
                shape.parameters, cpu_offload=offload, **place
            )
        return float(gpu)

    return [one(case) for case in cases]
