"""Host memory of a stage: offloaded states, loading, kernels' builds."""

from __future__ import annotations

from launcher.memory.lengths import whole
from launcher.memory.models import Resident
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
    models: tuple[Resident, ...], stage: Stage, settings: Settings, offloaded: int, peak: int
) -> int:
    """Bytes of one process; on a CPU cluster `peak` is among them."""
    workers = whole(stage.train, "dataloader_num_workers", 0)
    host = offloaded + HOST_BASE[settings.device] + workers * DATA_WORKER
    return host + (peak if settings.device == "cpu" else _loading(models, stage, settings))


def node_items(settings: Settings) -> dict[str, int]:
    """On CPU every use of DeepSpeed needs a kernel, on CUDA the optimizer on the host does."""
    builds = settings.zero_stage > 0 and (settings.device == "cpu" or settings.offload != "none")
    return {"DeepSpeed's kernel build": KERNEL_BUILD} if builds else {}


def _loading(models: tuple[Resident, ...], stage: Stage, settings: Settings) -> int:
    """Host memory while weights are read or written, for one process.

    The largest model passes through the host whole; under ZeRO-3 one rank of a node gathers it
    when it is saved, which is shared out over that node's processes.
    """
    largest = max(model.parameters for model in models) * (4 if stage.dtype == "float32" else 2)
    if settings.zero_stage == 3:
        return largest // settings.processes_per_node
    return largest
