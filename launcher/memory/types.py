"""An itemised estimate of the memory that one stage takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from launcher.recipe.types import Offload

GIB = 2**30


@dataclass(frozen=True)
class Settings:
    """What the plan decides for a stage and its memory depends on."""

    processes: int = 1
    """The world size; one process a GPU."""
    processes_per_node: int = 1
    zero_stage: int = 0
    """0: no DeepSpeed; on several processes plain data parallelism."""
    offload: Offload = "none"
    gradient_checkpointing: bool = False
    micro_batch: int = 1
    """Rows (of the data set; online: completions) of one forward pass on one process."""
    accumulation: int = 1
    gather_for_generation: bool = True
    """ZeRO-3, online: whether each GPU holds the whole weights while it generates."""
    device: Literal["cuda", "cpu"] = "cuda"
    server_gpus: int = 0
    """GPUs of the stage's vLLM server, which are not among the processes'."""
    device_bytes: int = 0
    """Memory of the whole GPU, of which vLLM takes a share where it runs in the same process; 0:
    not known."""
    reduce_bucket: int = 200_000_000
    """DeepSpeed's bucket sizes, in elements."""
    allgather_bucket: int = 200_000_000
    prefetch_bucket: int = 50_000_000
    live_parameters: int = 500_000_000
    """ZeRO-3: gathered parameters that may live at once, in elements."""


@dataclass(frozen=True)
class Phase:
    """What lives on one GPU at the peak of one phase (`load`, `rollout`, `update`, …)."""

    name: str
    items: Mapping[str, int]
    """Item (`weights`, `gradients`, `optimizer`, `activations`, `logits`, `kv cache`, `reference`,
    `reward model`, `value model`, `fragmentation`, `context`, …) → bytes."""

    @property
    def total(self) -> int:
        """Bytes that the driver counts for the process: all items."""
        return sum(self.items.values())

    @property
    def reserved(self) -> int:
        """Bytes that torch's caching allocator holds (`max_memory_reserved`)."""
        return self.total - self.items.get("context", 0)

    @property
    def allocated(self) -> int:
        """Bytes in tensors (`max_memory_allocated`)."""
        return self.reserved - self.items.get("fragmentation", 0)


@dataclass(frozen=True)
class MemoryEstimate:
    """What a stage takes, on one GPU and on the host."""

    phases: tuple[Phase, ...]
    host_bytes: int
    """Host memory of one process (bytes): offloaded states, loading, data workers."""
    node_items: Mapping[str, int] = field(default_factory=dict)
    """Host memory of a node that does not grow with its processes: item → bytes."""

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)
