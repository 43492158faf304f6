"""`COMPLETE.json`: a stage is done when this says so, and what it names is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.errors import LauncherError
from launcher.records import files
from launcher.records.paths import StagePaths


class NotComplete(LauncherError):
    """A stage that another builds on is not finished, or its files are not as it left them."""


@dataclass(frozen=True)
class Artifact:
    path: str
    """Relative to the stage's folder."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Complete:
    stage: str
    method: str
    token: str
    finished: float
    """Seconds since the epoch."""
    artifacts: tuple[Artifact, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The stage's result in figures, as logged last."""
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    """See `launcher.records.attempts.Attempt.peak_bytes`."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Phase (`load`, `train`, `save`, …) → wall-clock seconds of the last attempt."""
    versions: Mapping[str, str] = field(default_factory=dict)
    upstream: Mapping[str, str] = field(default_factory=dict)
    """Stage that was built on → SHA-256 of its COMPLETE.json."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """See `launcher.records.inputs`: what it was made from → digest."""


def digest(path: Path, *, settle: bool = False) -> str:
    """SHA-256 of a file, as hex. `settle`: it is on disk when this returns. Raises OSError."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            sha.update(chunk)
        if settle:
            os.fsync(handle.fileno())
    return sha.hexdigest()


def manifest(stage: StagePaths, roots: Iterable[Path]) -> tuple[Artifact, ...]:
    """Every file below `roots` (folders or files of the stage), hashed, and on disk when this
    returns. Raises OSError."""
    found = sorted(
        path
        for root in roots
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.is_file()
    )
    artifacts = tuple(
        Artifact(str(path.relative_to(stage.root)), path.stat().st_size, digest(path, settle=True))
        for path in found
    )
    for folder in {each for path in found for each in path.parents}:
        if folder.is_relative_to(stage.root):
            files.sync_folder(folder)
    return artifacts


def write(stage: StagePaths, complete: Complete) -> None:
    files.write_json(stage.complete, complete)


def read(stage: StagePaths) -> Complete | None:
    """What the stage says of itself, or None while it is not finished."""
    return files.read_json(stage.complete, Complete)


def verify(stage: StagePaths, *, hashes: bool = False) -> Complete:
    """The stage's `Complete` after every artifact was found with its size (and hash, if asked).

    Raises NotComplete.
    """
    complete = read(stage)
    if complete is None:
        raise NotComplete(
            f"{stage.root} has no COMPLETE.json", hint="run the stage before those that need it"
        )
    for artifact in complete.artifacts:
        path = stage.root / artifact.path
        size = path.stat().st_size if path.is_file() else None
        if size != artifact.size:
            found = "is missing" if size is None else f"has {size} bytes"
            raise NotComplete(
                f"{path} {found}, COMPLETE.json says {artifact.size}",
                hint=f"remove {stage.complete} to run the stage again",
            )
        if hashes and digest(path) != artifact.sha256:
            raise NotComplete(
                f"{path} changed since the stage finished",
                hint=f"remove {stage.complete} to run the stage again",
            )
    return complete
