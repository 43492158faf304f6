"""How a checkpoint comes to be, and goes: whole, by one rename, whenever the writer is killed.

It is written in a hidden folder of its own; COMMIT.json goes last; then the folder takes its name.
One that is pruned loses its name first, and its files after that. What a dead writer left behind is
taken away by `tidy`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from launcher.records import checkpoints, files
from launcher.records.checkpoints import COMMIT, Commit

_WRITING, _REPLACED, _PRUNED = ".writing", ".replaced", ".pruned"


def begin(folder: Path) -> Path:
    """A new hidden folder in `folder`, to write a checkpoint in. Raises OSError."""
    return _hidden(folder, _WRITING)


def commit(staged: Path, said: Commit) -> Path:
    """Make the checkpoint in the folder `staged`, below one of `begin`'s, one of those beside that.

    Its files but COMMIT.json are on disk already. A checkpoint of the same step makes room and is
    deleted afterwards; a kill in between leaves it to `tidy`, which puts it back. Returns where the
    new one is. Raises OSError.
    """
    files.write_json(staged / COMMIT, said.sealed())
    for place, _, _ in os.walk(staged, topdown=False):
        files.sync_folder(Path(place))
    folder = staged.parent.parent
    final = folder / staged.name
    before = None
    if os.path.lexists(final):
        before = _hidden(folder, _REPLACED)
        final.rename(before / final.name)
    staged.rename(final)
    files.sync_folder(folder)
    for emptied in (staged.parent, before):
        if emptied is not None:
            shutil.rmtree(emptied, ignore_errors=True)
    return final


def prune(folder: Path, kept: int, best: str | None = None) -> None:
    """Delete all but the newest `kept` committed checkpoints, and the one in `best`.

    A folder that is no committed checkpoint is left alone. Raises OSError.
    """
    for checkpoint in checkpoints.committed(folder)[:-kept]:
        if best is not None and checkpoint.path.name == Path(best).name:
            continue
        aside = _hidden(folder, _PRUNED)
        checkpoint.path.rename(aside / checkpoint.path.name)
        files.sync_folder(folder)
        shutil.rmtree(aside, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Take away what writers that are dead left behind. Raises OSError."""
    for aside in _leftovers(folder, _REPLACED):
        for path in aside.iterdir():
            if not os.path.lexists(folder / path.name):
                path.rename(folder / path.name)
                files.sync_folder(folder)
    for kind in (_WRITING, _REPLACED, _PRUNED):
        for aside in _leftovers(folder, kind):
            shutil.rmtree(aside, ignore_errors=True)


def _hidden(folder: Path, kind: str) -> Path:
    return files.private_folder(folder / f"{kind}-{uuid.uuid4().hex[:12]}")


def _leftovers(folder: Path, kind: str) -> list[Path]:
    return [path for path in folder.glob(f"{kind}-*") if path.is_dir() and not path.is_symlink()]
