"""A kill amid a save, and checkpoints that are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.faults import processes
from tests.faults.case import Case, files_below
from tests.faults.fault import Missed, fault
from tests.faults.scenes import SAVE, SFT

_FILES = ["open", "os.rename", "os.mkdir", "os.link"]
_REMOVALS = ["os.remove", "os.rmdir", "shutil.rmtree", "os.rename"]


@fault("killed while a checkpoint is written", SFT, quick=True)
def written(case: Case) -> None:
    # Within one of the first three saves, at one of the files that it opens, or just after.
    rule = {"events": _FILES, "path": r"/\.writing", "nth": case.rng.randint(2, 24)}
    _killed(case, rule, lambda mark: "COMMIT" not in mark)


@fault("killed before COMMIT.json is there", SFT)
def before_commit(case: Case) -> None:
    rule = {"events": _FILES, "path": r"/\.writing.*COMMIT\.json", "nth": case.rng.randint(1, 6)}
    _killed(case, rule, lambda mark: True)


@fault("killed before the checkpoint has its name", SFT)
def before_rename(case: Case) -> None:
    rule = {"events": ["os.rename"], "path": r"/checkpoints/checkpoint-\d+$"}
    _killed(case, {**rule, "nth": case.rng.randint(1, 3)}, lambda mark: True)


@fault("killed when the checkpoint has just got its name", SFT)
def after_commit(case: Case) -> None:
    case.hook(
        events=["os.rename"],
        path=r"/checkpoints/checkpoint-\d+$",
        nth=case.rng.randint(1, 3),
        do="kill",
        after_s=case.rng.uniform(0.0005, 0.01),
    )
    case.submit()
    mark = case.until_marked()[0]
    name = Path(mark["paths"][-1]).name
    _gone(case, mark["pid"])
    if not (case.stage.checkpoints / name / "COMMIT.json").exists():
        raise Missed("the kill came before the rename")
    case.hit(f"trainer {mark['pid']} killed with {name} committed")


@fault("killed while an old checkpoint is pruned", SFT)
def pruned(case: Case) -> None:
    nth = case.rng.randint(1, 12)
    rule = {"events": _REMOVALS, "path": r"/\.pruned|^checkpoint-|COMMIT|\.safetensors$|\.pt$"}
    _killed(case, {**rule, "nth": nth}, lambda mark: True, pattern=".pruned*")


def _killed(
    case: Case,
    rule: dict[str, object],
    right: Callable[[str], bool],
    pattern: str = ".writing*",
) -> None:
    case.hook(do="kill", **rule)
    case.submit()
    mark = case.until_marked()[0]
    _gone(case, mark["pid"])
    left = [path.name for path in case.stage.checkpoints.glob(pattern)]
    if not left or not right(mark["paths"][-1] if mark["paths"] else ""):
        raise Missed(f"nothing lay half done: {left}, {mark['paths']}")
    case.hit(f"trainer {mark['pid']} killed at {mark['event']} in {left[0]}")


def _gone(case: Case, pid: int) -> None:
    case.until(lambda: processes.started(pid) is None, f"{pid} to be dead", 20)


def _truncate(path: Path, case: Case) -> None:
    os.truncate(path, case.rng.randrange(1, path.stat().st_size))


def _empty(path: Path, _case: Case) -> None:
    os.truncate(path, 0)


def _flip(path: Path, case: Case) -> None:
    data = bytearray(path.read_bytes())
    place = case.rng.randrange(len(data))
    data[place] ^= 1 << case.rng.randrange(8)
    path.write_bytes(data)


def _remove(path: Path, _case: Case) -> None:
    path.unlink()


def _damage(case: Case, how: Callable[[Path, Case], None]) -> None:
    case.submit()
    case.until_step(case.rng.randint(2 * SAVE + 1, case.scene.steps - 3))
    victim = case.trainer()
    processes.kill(victim)
    newest = case.committed()[-1]
    files = [path for path in files_below(newest, "*") if path.stat().st_size > 1]
    chosen = case.rng.choice(files)
    before = chosen.read_bytes()
    how(chosen, case)
    if chosen.exists() and chosen.read_bytes() == before:
        raise Missed("the file did not change")
    case.finish(900)
    aside = [path.name for path in case.stage.checkpoints.glob(f"{newest.name}.bad*")]
    if not aside:
        raise Missed(f"{newest.name} was not read again")
    case.hit(f"{newest.name}/{chosen.name} {how.__name__[1:]}, now {aside[0]}")


@fault("the newest checkpoint is truncated", SFT, redo=2 * SAVE)
def truncated(case: Case) -> None:
    _damage(case, _truncate)


@fault("a file of the newest checkpoint is empty", SFT, redo=2 * SAVE)
def emptied(case: Case) -> None:
    _damage(case, _empty)


@fault("a bit of the newest checkpoint is flipped", SFT, redo=2 * SAVE)
def flipped(case: Case) -> None:
    _damage(case, _flip)


@fault("a file of the newest checkpoint is missing", SFT, redo=2 * SAVE)
def missing(case: Case) -> None:
    _damage(case, _remove)
