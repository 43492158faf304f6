"""An itemised estimate of the memory that one stage takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Phase:
    """What lives on one GPU at the peak of one phase (`load`, `rollout`, `update`, …)."""

    name: str
    items: Mapping[str, int]
    """Item (`weights`, `gradients`, `optimizer`, `activations`, `logits`, `kv cache`, `reference`,
    `reward model`, `value model`, `context`, …) → bytes."""

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.items.values())


@dataclass(frozen=True)
class MemoryEstimate:
    phases: tuple[Phase, ...]
    host_bytes: int
    """Host memory of one process (bytes): offloaded states, loading, data workers."""

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)
