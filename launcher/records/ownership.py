"""Whether anybody else could have written what lies in a folder of runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from launcher.records.paths import RunPaths

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


def distrust(path: Path) -> str | None:
    """Why what lies at `path` is not to be believed, in words; None: it is the user's alone, or
    there is nothing.

    The path itself may be a link; what it leads to counts.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    # Root could write anything anywhere.
    if status.st_uid not in (os.getuid(), _ROOT):
        return f"{path} belongs to another user (uid {status.st_uid})"
    if status.st_mode & _OTHERS:
        return f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def planted(run: RunPaths) -> str | None:
    """Why a run's folder is not to be believed: it, or a file of it, is another's, is open to
    others, or is a link to somewhere else. None: it is as the launcher made it."""
    for path in _own(run):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(status.st_mode):
            return f"{path} is a link, which no launcher made"
        why = distrust(path)
        if why is not None:
            return why
    return None


def _own(run: RunPaths) -> Iterator[Path]:
    yield from (run.root, run.plan, run.recipe, run.code, run.journal, run.stages, run.lock)
    yield from (run.local_chain, run.local_log)
    if run.journal.is_dir():
        yield from run.journal.iterdir()
    for root in run.stages.iterdir() if run.stages.is_dir() else ():
        stage = run.stage(root.name)
        yield root
        yield from (stage.attempts, stage.checkpoints, stage.logs, stage.model, stage.adapter)
        yield from (stage.complete, stage.inputs, stage.progress, stage.metrics, stage.server)


def way_out(path: Path) -> str:
    """What to do about a folder that is not to be believed."""
    return (
        f"chmod go-w {path}, if it is yours and nobody else wrote there; else choose another --runs"
    )
