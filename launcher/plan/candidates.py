"""The settings that may be tried for a stage on a layout, before memory and time are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launcher.memory.types import GIB
from launcher.plan.deepspeed import Bases, buckets
from launcher.plan.layouts import Layout
from launcher.recipe import vllm
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Offload, Stage

DEFAULT_GLOBAL_BATCH = 8
"""transformers' batch of one device, where the recipe does not say."""
LARGEST_MICRO_BATCH = 64
_EVALUATION_BATCHES = (32, 16, 8, 4, 2, 1)


def global_batch(stage: Stage) -> int | None:
    """None: evaluation without one, where any batch gives the same result."""
    if stage.global_batch is None and METHODS[stage.method].trains:
        return DEFAULT_GLOBAL_BATCH
    return stage.global_batch


def batches(stage: Stage, processes: int) -> list[tuple[int, int]]:
    """(micro-batch, accumulation) with the exact global batch, the smallest first.

    The recipe's checks see to it that a rollout of GRPO and RLOO is whole steps and whole groups,
    so that any of these divides it as TRL asks.
    """
    pin, total = stage.resources.micro_batch, global_batch(stage)
    if total is None:
        return [(size, 1) for size in ([pin] if pin else reversed(_EVALUATION_BATCHES))]
    if total % processes:
        return []
    own = total // processes
    sizes = [pin] if pin else range(least(stage), min(own, LARGEST_MICRO_BATCH) + 1)
    return [(size, own // size) for size in sizes if own % size == 0]


def least(stage: Stage) -> int:
    """Rows of the smallest micro-batch: KTO compares a row with others of it, but in one of its
    losses."""
    compares = stage.method == "kto" and stage.train.get("loss_type", "kto") == "kto"
    return 2 if compares else 1


def variants(
    stage: Stage, layout: Layout, device: str, gpu_gib: float | None, bases: Bases, *, offload: bool
) -> Iterator[dict[str, Any]]:
    """The keywords of `Settings`, batch sizes apart, from the plainest to the most frugal.

    `offload`: those that use the host's memory instead of those that do not. A pinned offload
    counts as plain.
    """
    pins, trains = stage.resources, METHODS[stage.method].trains
    pinned_gather = stage.train.get("ds3_gather_for_generation")
    shared = {
        "processes": layout.processes,
        "processes_per_node": layout.per_node,
        "device": device,
    }
    if vllm.mode(stage) == "colocate":
        shared["device_bytes"] = int((gpu_gib or 0) * GIB)
    if layout.server:
        shared["server_gpus"] = layout.server
    for zero, kind in _zero_and_offload(stage, layout):
        if (kind != "none" and pins.offload is None) != offload:
            continue
        gathers: tuple[bool, ...] = (True,)
        if zero == 3 and not trains:
            # Weights are divided because they do not fit whole, while generating either.
            gathers = (False,)
        elif zero == 3 and METHODS[stage.method].online and vllm.mode(stage) is None:
            gathers = (True, False) if pinned_gather is None else (bool(pinned_gather),)
        checkpoints: tuple[bool, ...] = (False, True) if trains else (False,)
        if pins.gradient_checkpointing is not None and trains:
            checkpoints = (pins.gradient_checkpointing,)
        for gather in gathers:
            for checkpointing in checkpoints:
                yield {
                    **shared,
                    "zero_stage": zero,
                    "offload": kind,
                    "gradient_checkpointing": checkpointing,
                    "gather_for_generation": gather,
                    **(buckets(bases[zero]) if zero else {}),
                }


def _zero_and_offload(stage: Stage, layout: Layout) -> list[tuple[int, Offload]]:
    pins = stage.resources
    every: tuple[tuple[int, Offload], ...]
    if not METHODS[stage.method].trains:
        every = ((0, "none"), (3, "none"))
    else:
        every = (
            (0, "none"),
            (1, "none"),
            (1, "optimizer"),
            (2, "none"),
            (2, "optimizer"),
            (3, "none"),
            (3, "optimizer"),
            (3, "all"),
        )
    found = [
        (zero, offload)
        for zero, offload in every
        if pins.zero_stage in (None, zero) and pins.offload in (None, offload)
    ]
    if pins.zero_stage is None:
        # ZeRO 2 does all that 1 does in less memory, and accumulates in float32.
        found = [pair for pair in found if pair[0] != 1]
        if stage.train.get("sync_ref_model"):
            # The worker refuses it: a reference that follows the policy cannot be resumed there.
            found = [pair for pair in found if pair[0] != 3]
        if not layout.on_gpus:
            # Host memory is all there is: nothing to offload to, little to divide.
            found = [pair for pair in found if pair == (0, "none")] or found
        elif layout.processes == 1:
            # Nothing to divide by: DeepSpeed only serves to offload.
            found = [pair for pair in found if pair[0] == 0 or pair[1] != "none"]
    return found
