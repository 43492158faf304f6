"""Host memory of a stage: offloaded states, loading, kernels' builds."""

from __future__ import annotations

from launcher.memory.lengths import whole
from launcher.memory.models import Resident
from launcher.memory.stack import Stack, width
from launcher.memory.types import GIB, Settings
from launcher.recipe.types import Stage

HOST_BASE = {"cuda": 8 * GIB, "cpu": 3 * GIB // 2}
"""Host memory of a process beside its tensors: libraries and pinned buffers."""
DATA_WORKER = GIB // 2
"""A data worker's own pages: forked, it shares the trainer's until it writes."""
KERNEL_BUILD = 3 * GIB
"""DeepSpeed compiles a kernel on the node that first uses it, two files at once: 1.4 GiB each,
measured with g++ 12 and torch 2.13. One process of a node builds while the others wait."""


def host_memory(
    models: tuple[Resident, ...],
    stage: Stage,
    settings: Settings,
    stack: Stack,
    *,
    offloaded: int,
    peak: int,
    saved: int,
) -> int:
    """Bytes of one process; on a CPU cluster `peak` is among them. `saved` is what the writing of
    the model takes on the host of rank 0."""
    workers = whole(stage.train, "dataloader_num_workers", 0)
    host = offloaded + HOST_BASE[settings.device] + workers * DATA_WORKER
    if settings.device == "cpu":
        return host + peak
    return host + max(_loading(models, settings, stack), saved // settings.processes_per_node)


def node_items(settings: Settings) -> dict[str, int]:
    """On CPU every use of DeepSpeed needs a kernel, on CUDA the optimizer on the host does."""
    builds = settings.zero_stage > 0 and (settings.device == "cpu" or settings.offload != "none")
    return {"DeepSpeed's kernel build": KERNEL_BUILD} if builds else {}


def _loading(models: tuple[Resident, ...], settings: Settings, stack: Stack) -> int:
    """Host memory while weights are read, for one process.

    Each model passes through the host whole, in the precision that it has on the GPU; under ZeRO 3
    a node's processes take parts of it.
    """
    largest = max(
        width(stack.weights if each.trained else stack.compute) * each.parameters for each in models
    )
    if settings.zero_stage == 3:
        return largest // settings.processes_per_node
    return largest
