"""Weights, gradients and optimizer states of one model on one GPU, and their share on the host."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory.models import Resident
from launcher.memory.types import Settings
from launcher.recipe.types import Dtype


@dataclass(frozen=True)
class States:
    """Bytes on one device, and on the host for one process."""

    weights: int
    gradients: int
    optimizer: int
    step: int
    """What lives only while the optimizer steps."""
    casts: int
    """Half-precision copies that autocast keeps of float32 weights."""
    host: int


def states(model: Resident, dtype: Dtype, settings: Settings) -> States:
    """The bytes of a model's states under ZeRO `settings.zero_stage` on `settings.processes`.

    A trained parameter, in bytes:
    - one process or plain data parallelism: float32 weight 4, gradient 4, two Adam moments 8; in
      half precision autocast adds a copy of 2; data parallelism adds its gradient buckets, 4;
    - DeepSpeed in half precision: weight 2, gradient 2 (float32 accumulation from ZeRO 2 on: 4),
      master and moments 12, and at the step a float32 copy of the gradient partition, 4;
    - DeepSpeed in float32: weight 4, gradient 4, master and moments 12, and 4 at the step.
    A frozen parameter takes the bytes of `dtype`. ZeRO divides optimizer states by the number of
    processes from stage 1 on, gradients from 2, weights (frozen ones too) at 3.
    Adapters trained without DeepSpeed are float32 beside a base in `dtype`.
    """
    half = dtype != "float32"
    width = 2 if half else 4
    deepspeed = settings.zero_stage >= 1
    n = settings.processes
    trained, frozen = model.trained, model.frozen

    if not deepspeed:
        buckets = 4 if n > 1 else 0
        autocast = 2 if half and frozen == 0 else 0
        return States(
            weights=width * frozen + 4 * trained,
            gradients=(4 + buckets) * trained,
            optimizer=8 * trained,
            step=0,
            casts=autocast * trained,
            host=0,
        )
    accumulates = 4 if settings.zero_stage >= 2 else width
    weights = width * (frozen + trained)
    gradients = accumulates * trained
    optimizer, step = 12 * trained // n, 4 * trained // n
    if settings.zero_stage >= 2:
        gradients //= n
    if settings.zero_stage == 3:
        weights //= n
    host = 0
    if settings.offload != "none":
        host += optimizer + step
        optimizer = step = 0
        if settings.zero_stage >= 2:
            host += gradients
            gradients = 0
    if settings.offload == "all":
        host += weights
        weights = 0
    return States(weights, gradients, optimizer, step, 0, host)


def exchange(models: tuple[Resident, ...], dtype: Dtype, settings: Settings) -> dict[str, int]:
    """DeepSpeed's communication buffers (bytes): buckets, and the parameters ZeRO-3 gathers."""
    if settings.zero_stage == 0:
        return {}
    width = 2 if dtype != "float32" else 4
    trained = sum(model.trained for model in models)
    total = sum(model.parameters for model in models)
    # Two gradient buckets, as communication overlaps with the backward pass.
    items = {"buckets": 2 * width * min(settings.reduce_bucket, trained)}
    if settings.zero_stage < 3:
        items["buckets"] += width * min(settings.allgather_bucket, trained)
        return items
    # The embedding is the largest parameter: it is gathered whole, whatever the limit is.
    largest = max(model.shape.embedding_parameters for model in models)
    live = max(settings.live_parameters + settings.prefetch_bucket, 2 * largest)
    items["gathered weights"] = width * min(live, total)
    return items
