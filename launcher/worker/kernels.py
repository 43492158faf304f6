"""DeepSpeed's kernels are compiled on first use: one process at a time, before the ranks meet.

torch guards a build with a file that a killed process leaves behind, and every later job waits on
it for ever. Builds here are made under a lock that the system takes back, so whoever holds it may
remove that file.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import Any

from launcher.worker.context import Context


def build(context: Context) -> None:
    """Compile what the stage's DeepSpeed configuration will load, unless it is there already."""
    from torch.utils.cpp_extension import _get_build_directory

    # The environment's own ninja: another version cannot read this one's log and builds all anew.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for builder in _builders(context):
        folder = Path(_get_build_directory(builder.name, verbose=False))
        with (folder.parent / f"{builder.name}.launcher-lock").open("w") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            (folder / "lock").unlink(missing_ok=True)
            builder.load(verbose=False)


def _builders(context: Context) -> list[Any]:
    needed: list[Any] = []
    if context.on_cpu:
        from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

        needed.append(ShareMemCommBuilder())
    if context.stage_plan.offload != "none":
        from deepspeed.accelerator import get_accelerator

        needed.append(get_accelerator().create_op_builder("CPUAdamBuilder"))
    return needed
