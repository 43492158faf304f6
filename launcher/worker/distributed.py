"""How the ranks of a stage meet: gloo on CPU, NCCL on GPUs, through torch's own variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from launcher.errors import LauncherError
from launcher.worker import kernels
from launcher.worker.context import Context
from launcher.worker.outcome import Ends

T = TypeVar("T")
_WORLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join(context: Context) -> None:
    """Join the process group, where the stage has one.

    Raises LauncherError where the plan says GPU and torch sees none: a training that falls back to
    the CPU in silence would waste the allocation.
    """
    uses_deepspeed = context.stage_plan.deepspeed is not None
    if context.on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if not context.on_cpu and not torch.cuda.is_available():
        raise LauncherError(
            f"the plan is for GPUs, and torch {torch.__version__} sees none on this node",
            hint="check the driver, and that the environment on the nodes has a CUDA build",
        )
    if context.world == 1 and not uses_deepspeed:
        # Alone, with these set, accelerate would open a process group of one.
        for name in _WORLD:
            os.environ.pop(name, None)
        return
    if uses_deepspeed:
        import deepspeed

        kernels.build(context)
        backend = "gloo" if context.on_cpu else "nccl"
        deepspeed.init_distributed(backend, auto_mpi_discovery=False)


def wait_for_all() -> None:
    """Return when every rank has come here."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def place() -> tuple[int, int]:
    """This rank, and how many there are."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def told(value: Any) -> Any:
    """Rank 0's value, on every rank. A collective."""
    import torch.distributed as dist

    if place()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def by_main(act: Callable[[], T]) -> T:
    """What rank 0 gets by `act`, on every rank. A collective.

    Raises Ends (`disk`), on every rank, where rank 0 meets an OSError.
    """
    done, failed = None, None
    if place()[0] == 0:
        try:
            done = act()
        except OSError as error:
            failed = str(error)
    done, failed = told((done, failed))
    if failed is not None:
        raise Ends("disk", failed)
    return done


def gathered(own: Any) -> list[Any]:
    """Every rank's value, on every rank. A collective."""
    import torch.distributed as dist

    world = place()[1]
    if world == 1:
        return [own]
    found: list[Any] = [None] * world
    dist.all_gather_object(found, own)
    return found
