"""Weights, gradients and optimizer states of one model on one GPU, and their share on the host."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory.models import Resident
from launcher.memory.optimizers import on_vector, optimizer
from launcher.memory.stack import Base, Stack, width
from launcher.memory.types import Settings

BASE_BYTES: dict[Base, float] = {
    "nf4": 0.5 + 4 / 64,
    "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256),
    "int8": 1.0,
    "gptq4": 0.5 + 2.5 / 128,
}
"""Bytes of a frozen weight of a block's linear layers. NF4: a float32 scale for 64 weights, or a
byte for it and a float32 for 256 of those. GPTQ: a half-precision scale and 4 bits for 128."""


SUB_GROUP = 1_000_000_000
"""Elements of a part of the states that ZeRO 3 updates at once (`sub_group_size`, DeepSpeed's
default)."""


MASTER = 4
"""Bytes of DeepSpeed's own copy of a weight that trains, which it gives the optimizer in a flat
vector (`single_partition_of_fp32_groups`, `fp32_partitioned_groups_flat`)."""


@dataclass(frozen=True)
class States:
    """Bytes on one device, and on the host for one process."""

    weights: int
    gradients: int
    """Once they are all there."""
    optimizer: int
    step: int
    """What lives only while the optimizer steps."""
    host: int
    buckets: int = 0
    """Copies of the gradients that data parallelism exchanges."""
    idle: int = 0
    """Room for gradients that is taken between steps too."""


def states(model: Resident, stack: Stack, settings: Settings) -> States:
    """The bytes of a model's states under ZeRO `settings.zero_stage` on `settings.processes`.

    Without DeepSpeed weights, gradients and moments have the width of the weights; adapters theirs;
    data parallelism over several processes adds gradient buckets of the same size. DeepSpeed takes,
    for a trained parameter on n processes, in bytes (`benchmarks/zero_states.py` measures them):
    the weight, 2 (in float32: 4), at ZeRO 3 divided by n; the master, 4/n, and what the optimizer
    that it was given makes for that float32 vector (AdamW 8/n), with its copies of it at the step,
    at ZeRO 3 of a sub-group; the gradient,
    at ZeRO 1 whole (2), at ZeRO 2 a float32 part (4/n), which at ZeRO 3 stays between steps; and
    at the step a float32 copy of that part, at ZeRO 3 `SUB_GROUP` elements at a time (at ZeRO 2
    only a double of its largest parameter). FSDP divides weights, gradients and moments, each in
    its own width; with its parameters on the host they all are there.
    """
    frozen = _frozen(model, stack)
    if settings.zero_stage and stack.sharding == "zero":
        return _deepspeed(model, stack, settings, frozen)
    n, rule = settings.processes, optimizer(stack.optimizer)
    size, fsdp = _trained_bytes(model, stack), settings.zero_stage > 0
    shards = n if fsdp else 1
    moments = int((rule.moments * size + rule.fixed * model.trained) / shards)
    found = States(
        weights=(frozen + size) // shards,
        gradients=_fsdp_gradients(model, stack, settings) if fsdp else size,
        optimizer=0 if rule.paged else moments,
        step=int(rule.copies * size / shards + rule.work * _largest(model)),
        host=moments if rule.paged else 0,
        buckets=size if n > 1 and not fsdp else 0,
    )
    if fsdp and settings.offload == "all":
        host = found.weights + found.gradients + moments + found.step
        return States(0, 0, 0, 0, host)
    return found


def _trained_bytes(model: Resident, stack: Stack) -> int:
    """Of the weights that train, each in its own width."""
    if not model.adapters:
        return width(stack.weights) * model.trained
    own = width(stack.adapters) * (model.trained - model.whole)
    # Beside a quantized base all that trains is given the precision of adapters.
    copies = stack.weights if stack.base == "dense" else stack.adapters
    return own + width(copies) * model.whole


def _fsdp_gradients(model: Resident, stack: Stack, settings: Settings) -> int:
    """FSDP divides gradients when it exchanges them. Under accumulation it does not (`no_sync`),
    and those of a flat parameter are as large as that, frozen parts and all."""
    if settings.accumulation > 1:
        return width(stack.compute) * (model.parameters if stack.shared_units else model.trained)
    return _trained_bytes(model, stack) // settings.processes


def _deepspeed(model: Resident, stack: Stack, settings: Settings, frozen: int) -> States:
    n, trained = settings.processes, model.trained
    half, zero = width(stack.weights), settings.zero_stage
    weights, rule = frozen + half * trained, on_vector(stack.optimizer)
    moments = int((MASTER + MASTER * rule.moments + rule.fixed) * trained) // n
    passing = MASTER * rule.copies + rule.work
    step, work = MASTER * trained // n, int(passing * trained) // n
    gradients, idle = 4 * trained // n, 0
    if zero == 1:
        gradients = half * trained
    elif zero == 2:
        # The norm is taken of a double-precision copy, one parameter after the other, and gone by
        # the time of the optimizer's own.
        step, work = max(8 * min(_largest(model), trained // n), work), 0
    else:
        weights //= n
        idle = gradients
        if settings.offload == "none":
            # A group ends with the parameter that fills it. On the host all groups' copies stay.
            group = SUB_GROUP + _largest(model) // n
            step, work = min(step, MASTER * group), min(work, int(passing * group))
    step += work
    host = 0
    if rule.paged:
        host = moments - MASTER * trained // n
        moments -= host
    if settings.offload != "none":
        host += moments + step
        moments = step = 0
        if zero >= 2:
            host += gradients
            gradients = idle = 0
    if settings.offload == "all":
        host += weights
        weights = 0
    return States(weights, gradients, moments, step, host, idle=idle)


def _largest(model: Resident) -> int:
    """Elements of the largest parameter that trains."""
    shape = model.shape
    if model.adapters:
        adapter = (model.trained - model.whole) // max(1, shape.layers)
        return max(adapter, min(model.whole, shape.embedding_parameters))
    return max(shape.embedding_parameters, shape.hidden * shape.intermediate)


def _frozen(model: Resident, stack: Stack) -> int:
    if not model.trained:
        return width(stack.compute) * model.frozen
    size = width(stack.weights)
    if stack.base == "dense":
        return size * model.frozen
    packed = _packed(model, stack)
    if stack.quantized_head:
        # As much again in full width stays, where the head's was.
        return int(BASE_BYTES[stack.base] * (packed + model.shape.embedding_parameters)) + size * (
            model.frozen - packed
        )
    return int(BASE_BYTES[stack.base] * packed) + size * (model.frozen - packed)


def _packed(model: Resident, stack: Stack) -> int:
    shape = model.shape
    if not (shape.experts and stack.expert_layers):
        return model.packed
    expert = (3 if shape.gated_mlp else 2) * shape.hidden * shape.intermediate
    return model.packed + shape.layers * shape.experts * expert


def exchange(
    models: tuple[Resident, ...], stack: Stack, settings: Settings, *, blocks: int = 1
) -> dict[str, int]:
    """Communication buffers (bytes): DeepSpeed's buckets, and the parameters that are gathered
    (by FSDP of `blocks` blocks)."""
    if settings.zero_stage == 0:
        return {}
    if stack.sharding == "fsdp":
        return {"gathered weights": _fsdp_units(models, stack, blocks)}
    size = width(stack.weights)
    trained = sum(model.trained for model in models)
    total = sum(model.parameters for model in models)
    reduce = settings.reduce_bucket if stack.whole_buckets else min(settings.reduce_bucket, trained)
    # Two gradient buckets, as communication overlaps with the backward pass.
    items = {"buckets": 2 * size * reduce}
    if settings.zero_stage < 3:
        items["buckets"] += size * min(settings.allgather_bucket, trained)
        return items
    # The embedding is the largest parameter: it is gathered whole, whatever the limit is.
    largest = max(model.shape.embedding_parameters for model in models)
    live = max(settings.live_parameters + settings.prefetch_bucket, 2 * largest)
    items["gathered weights"] = size * min(live, total)
    return items


def _fsdp_units(models: tuple[Resident, ...], stack: Stack, count: int) -> int:
    """FSDP gathers the unit of embedding, last norm and head for the whole pass, and blocks."""
    size, found = width(stack.compute), 0.0
    for model in models:
        shape, packed = model.shape, _packed(model, stack)
        blocks = shape.layers * shape.layer_parameters
        dense = stack.base == "dense" or not model.adapters
        matrices = packed * (size if dense else BASE_BYTES[stack.base])
        block = (matrices + size * (blocks - packed)) / shape.layers
        found = max(found, size * max(0, shape.parameters - blocks) + count * block)
    return int(found)
