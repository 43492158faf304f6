"""The folder of a run: made whole or not at all, found again by what was asked."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from launcher.errors import LauncherError, UsageError
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.plan.runnable import check_runnable
from launcher.plan.types import Plan
from launcher.plan.user_files import user_files
from launcher.records import files, journal, ownership
from launcher.records.paths import RunPaths

_PACKAGE = Path(__file__).resolve().parent.parent
# Folders that each node has for itself.
_OF_ONE_NODE = ("/tmp", "/var/tmp", "/dev/shm", "/run")
# `%` and `\\` mean something to Slurm in the name of a log, `:` parts the folders of PYTHONPATH.
_UNFIT = set("%\\:")
LEFT_S = 24 * 3600
"""No launcher takes so long to make a run."""


def check(runs: Path, plan: Plan) -> Path:
    """Where the runs are, looked at before anything is done for one.

    Raises UsageError for a stage that cannot be run, and for a folder that jobs could not write to.
    """
    check_runnable(plan)
    root = runs.resolve()
    if not root.as_posix().isprintable() or set(str(root)) & _UNFIT:
        raise UsageError(
            f"jobs cannot work below {str(root)!r}",
            hint="choose a --runs folder without percent signs, backslashes, colons and"
            " control characters",
        )
    _check_shared(plan, root)
    return root


def create(
    runs: Path, plan: Plan, recipe: Mapping[str, Any], *, new: bool
) -> tuple[RunPaths, bool]:
    """The run of `plan` under `runs`, and whether it was made now.

    The run's name holds the plan's identity, so the same recipe finds its run again; `new` makes
    another beside it. The folder appears by one rename with all that it holds, so two launchers
    at once make one run. Raises UsageError for a stage that cannot be run, and for a folder that
    jobs could not write to.
    """
    root = check(runs, plan)
    _own(root)
    base = f"{plan.name}-{plan.identity[:8]}"
    known = sorted(_namesakes(root, base), key=_ordinal)
    if known and not new:
        return RunPaths(known[-1]), False
    _sweep(root)
    aside = _prepare(root, plan, recipe)
    ordinal = _ordinal(known[-1]) + 1 if known else 1
    try:
        while True:
            folder = root / (base if ordinal == 1 else f"{base}-{ordinal}")
            try:
                aside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                if not new:
                    return RunPaths(folder), False
                ordinal += 1
            else:
                return RunPaths(folder), True
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)


def find(runs: Path, name: str | None) -> RunPaths:
    """The run called `name` (an unambiguous beginning or a path will do), or the newest.

    Raises UsageError.
    """
    known = every(runs)
    if name is None:
        if not known:
            raise UsageError(f"there is no run in {runs}", hint="submit a recipe first")
        return known[-1]
    exact = [run for run in known if run.root.name == name]
    matching = exact or [run for run in known if run.root.name.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if len(matching) > 1:
        raise UsageError(
            f"{name} is the beginning of {len(matching)} runs",
            hint="one of: " + ", ".join(run.root.name for run in matching),
        )
    if "/" in name and RunPaths(Path(name)).plan.is_file():
        return RunPaths(Path(name).resolve())
    raise UsageError(f"there is no run {name} in {runs}", hint="`launcher list` shows the runs")


def every(runs: Path) -> list[RunPaths]:
    """All runs, the oldest first."""
    if not runs.is_dir():
        return []
    found = [RunPaths(p.resolve()) for p in runs.iterdir() if (p / "plan.json").is_file()]
    visible = [run for run in found if not run.root.name.startswith(".")]
    return sorted(visible, key=lambda run: (run.plan.stat().st_mtime_ns, run.root.name))


def load_plan(run: RunPaths) -> Plan:
    """The plan that the run was made from. Raises LauncherError."""
    why = ownership.planted(run)
    if why is not None:
        raise UsageError(f"this run is not believed: {why}", hint=ownership.way_out(run.root))
    try:
        return plan_from_json(run.plan.read_text())
    except OSError as error:
        raise LauncherError(f"{run.plan} cannot be read: {error.strerror}") from error


def _sweep(root: Path) -> None:
    """Remove what launchers that died while they made a run have left, a day ago or longer."""
    for path in root.glob(".new-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_S:
                shutil.rmtree(path)


def _namesakes(root: Path, base: str) -> Iterator[Path]:
    for path in root.glob(f"{base}*"):
        rest = path.name[len(base) :]
        if rest == "" or (rest.startswith("-") and rest[1:].isdigit()):
            yield path


def _check_shared(plan: Plan, root: Path) -> None:
    """Raises UsageError where jobs on several nodes would each find another folder, or none."""
    on_nodes = plan.cluster.engine == "slurm" and plan.cluster.device == "cuda"
    wide = [stage for stage in plan.stages if stage.runs and stage.allocation.all_nodes > 1]
    if on_nodes and wide and any(root.is_relative_to(place) for place in _OF_ONE_NODE):
        raise UsageError(
            f"stages.{wide[0].name} runs on {wide[0].allocation.all_nodes} nodes, and {root} is"
            " each node's own",
            hint="name a folder on the shared file system: --runs",
        )


def _own(root: Path) -> None:
    """Make the folder of the runs. Raises UsageError where others could write to it."""
    if root in (Path("/"), Path.home().resolve()):
        raise UsageError(
            f"runs are not made in {root} itself", hint="name a folder below it: --runs"
        )
    files.private_folder(root)
    why = ownership.distrust(root)
    if why is not None:
        raise UsageError(
            f"no runs are made where others may write: {why}", hint=ownership.way_out(root)
        )


def _ordinal(path: Path) -> int:
    """1 for `name-hash`, N for `name-hash-N`."""
    last = path.name.rsplit("-", 1)[-1]
    return int(last) if last.isdigit() and len(last) < 8 else 1


def _prepare(root: Path, plan: Plan, recipe: Mapping[str, Any]) -> Path:
    aside = files.private_folder(root / f".new-{uuid.uuid4().hex}")
    run = RunPaths(aside)
    try:
        files.replace(run.recipe, yaml.safe_dump(dict(recipe), sort_keys=False).encode())
        files.replace(run.plan, plan_to_json(plan).encode())
        _snapshot(run, plan)
        journal.append(run.journal, journal.Event("created", time.time()))
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _snapshot(run: RunPaths, plan: Plan) -> None:
    """Copy this package and the user's own files: a queued chain runs what was submitted."""
    package = files.private_folder(run.code) / _PACKAGE.name
    for folder, below, names in os.walk(_PACKAGE):
        below[:] = [name for name in below if name not in ("__pycache__", "share")]
        target = files.private_folder(package / Path(folder).relative_to(_PACKAGE))
        for name in names:
            files.private_copy(Path(folder) / name, target / name)
    for path in user_files(plan):
        copy = run.user_file(path)
        files.private_folder(copy.parent)
        files.private_copy(Path(path), copy)
