"""What a row says, in the launcher's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from launcher.memory.stack import Stack
from launcher.memory.types import Settings
from launcher.models.types import ModelShape
from launcher.recipe.types import Stage

Metric = Literal["allocated", "reserved", "total"]
"""What a peak counts: tensors (`max_memory_allocated`), the allocator's pool
(`max_memory_reserved`), or the whole process as the driver sees it (nvidia-smi)."""


class Unknowable(Exception):
    """A row whose settings its source does not tell, or that the launcher does not train."""


@dataclass(frozen=True)
class Case:
    stage: Stage
    shapes: Mapping[str, ModelShape]
    settings: Settings
    stack: Stack
    metric: Metric
    native: bool = False
    """Whether TRL or transformers run with their own modelling code and no kernels of others."""
    unit: float = 1.0
    """GiB of one unit of the row's figure, where the table could not tell."""
    doubts: tuple[str, ...] = field(default=())
    """What its source leaves open of a row that is scored all the same."""
