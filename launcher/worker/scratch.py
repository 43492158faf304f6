"""The node's own disk, where the profile of the cluster names one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def variables(root: str | None) -> Mapping[str, str]:
    """Variables that put temporary files and Triton's kernels on the node's own disk.

    `root` may name variables of the job (`/scratch/$SLURM_JOB_ID`). None, or where no folder
    can be made in it: nothing, and the usual places serve.
    """
    if root is None:
        return {}
    folder = Path(os.path.expandvars(root)) / f"launcher-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        print(f"scratch {folder}: {error.strerror}; the usual places serve", flush=True)
        return {}
    if owner != os.getuid():
        print(f"scratch {folder} is another user's; the usual places serve", flush=True)
        return {}
    return {"TMPDIR": str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
