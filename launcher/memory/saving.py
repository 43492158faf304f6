"""The end of a training: its model is written, whole, as the next stage loads it."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory.lora import EXPERTS_DOWN, EXPERTS_UP, sizes, targets
from launcher.memory.models import Resident
from launcher.memory.stack import Stack, width
from launcher.memory.states import BASE_BYTES
from launcher.memory.types import Settings
from launcher.recipe.types import Peft, Stage

SHARD = 50_000_000_000
"""Bytes of one file of weights (`max_shard_size` of transformers' `save_pretrained`): those of one
are on the host at once."""
DELTA = 4 + 4 + 2
"""Bytes an element of a matrix that an adapter is merged into: their product, scaled, in float32,
and cast."""


@dataclass(frozen=True)
class Saved:
    """Bytes beside what stays between two steps."""

    gathered: int
    """On each device: what ZeRO 3 gathers at a time."""
    host: int
    """On the host of rank 0, which writes."""


def saving(model: Resident, stage: Stage, settings: Settings, stack: Stack) -> Saved:
    """What it takes to write `model`.

    Under ZeRO 3 DeepSpeed gathers the weights of one module after the other and copies them to
    the host of rank 0, frozen ones too (`_zero3_consolidated_16bit_state_dict`). Without it the
    weights of a file pass through the host; on a CPU they are there. Adapters are then merged into
    their base, which is loaded again for that, into the host's memory.
    """
    size, gathered, host = width(stack.weights), 0, 0
    if settings.zero_stage == 3 and stack.sharding == "zero":
        gathered = size * _largest_module(model)
        host = size * model.parameters
    elif settings.device == "cuda":
        written = width(stack.adapters) if model.adapters else size
        host = min(SHARD, written * model.trained)
    if stage.peft is not None and model.adapters:
        host = max(host, _merged(model, stage.peft, stack))
    return Saved(gathered, host)


def _merged(model: Resident, peft: Peft, stack: Stack) -> int:
    whole = width(stack.compute) * model.frozen
    packed = int(BASE_BYTES[stack.base] * model.packed) if stack.base != "dense" else 0
    return whole + packed + DELTA * _largest_adapted(model, peft)


def _largest_module(model: Resident) -> int:
    """Elements of the largest module's own parameters: the embedding, or a block's experts."""
    shape = model.shape
    matrices = 3 if shape.gated_mlp else 2
    experts = matrices * shape.experts * shape.hidden * shape.intermediate
    return max(shape.embedding_parameters, experts, shape.hidden * shape.intermediate)


def _largest_adapted(model: Resident, peft: Peft) -> int:
    """Elements of the largest matrix, or of a block's stacked ones, that has an adapter."""
    shape, found = model.shape, targets(peft, model.shape)
    each = [i * o for name, (i, o) in sizes(shape).items() if name in found]
    stacked = shape.experts * shape.hidden * shape.intermediate
    each += [2 * stacked] if EXPERTS_UP in found else []
    each += [stacked] if EXPERTS_DOWN in found else []
    return max(each, default=0)
