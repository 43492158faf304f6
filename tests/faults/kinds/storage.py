"""Disks that are full, read-only, over quota or stale, and what dead hosts left behind."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.scenes import SFT, SHORT

ERRORS = ("EROFS", "EDQUOT", "ESTALE", "ENOSPC", "EIO")


@fault("the disk is full at a save", SFT, cluster="small disk", patience_s=900)
def full(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step(1, case.scene.steps - 8))
    ballast = case.root.root / "ballast"
    with case.halted():
        _fill(ballast)
    step, free = case.step(), os.statvfs(case.root.root).f_bavail
    tries = len(case.attempts())
    case.until(lambda: _disk_failed(case) or len(case.attempts()) > tries, "a save to fail")
    if case.complete():
        raise Missed("it never had to save")
    time.sleep(case.rng.uniform(0, 3))
    ballast.unlink()
    case.hit(f"no more than {free} blocks free from step {step} on, a save failed")


def _fill(path: Path) -> None:
    """Write a file until nothing more can be written."""
    with suppress(OSError), path.open("wb", buffering=0) as handle:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    handle.write(b"x" * size)


def _disk_failed(case: Case) -> bool:
    """Whether a receipt or a log tells of a full disk."""
    words = ("No space left", "ENOSPC", '"disk"')
    paths = [*case.stage.attempts.glob("*.json"), *case.stage.logs.glob("*")]
    return any(w in p.read_text(errors="replace") for p in paths if p.is_file() for w in words)


@fault("a write of a save fails, once", SFT, patience_s=900)
def save(case: Case) -> None:
    _fails(case, r"/\.writing|/checkpoints/checkpoint-\d", case.rng.randint(1, 30), 1)


@fault("writes of saves fail, three times in a row", SFT, patience_s=1200)
def saves(case: Case) -> None:
    _fails(case, r"/\.writing", case.rng.randint(1, 6), 3)


@fault("a write of the log or of the progress fails", SFT, redo=6, patience_s=900)
def log(case: Case) -> None:
    case.unlogged = 1
    _fails(case, r"metrics\.jsonl|progress\.json", case.rng.randint(2, 40), 1)


@fault("a write of the finished model fails", SFT, patience_s=900)
def model(case: Case) -> None:
    _fails(case, r"/model/|/model$|COMPLETE", case.rng.randint(1, 5), 1)


def _fails(case: Case, path: str, nth: int, times: int) -> None:
    error = case.rng.choice(ERRORS)
    case.hook(
        events=["open", "os.mkdir", "os.rename", "os.link"],
        path=path,
        nth=nth,
        times=times,
        do=f"errno {error}",
    )
    case.submit()
    for mark in case.until_marked(times):
        case.hit(f"{error} at {mark['event']} of {Path(mark['paths'][-1]).name}")


@fault("a write of the submission fails", SHORT, end="next command", redo=0)
def submit(case: Case) -> None:
    error = case.rng.choice(ERRORS)
    case.hook(
        module="launcher.cli.main",
        events=["open", "os.mkdir", "os.rename", "os.link"],
        path=str(case.site.runs),
        nth=case.rng.randint(1, 200),
        do=f"errno {error}",
    )
    rules = case.folder / "launcher.json"
    rules.write_text(json.dumps(case.rules))
    case.rules.clear()
    said = case.site.call("submit", case.recipe(), "--json", env={"FAULT_HOOK": str(rules)})
    marks = case.marks()
    if not marks or said.code == 0:
        raise Missed(f"submit exited {said.code} after {len(marks)} failed writes")
    if "Traceback" in said.err:
        raise Lost(f"a traceback: {said.err.strip()[-300:]}")
    case.hit(f"{error} at {marks[0]['event']} of {marks[0]['paths'][-1:]}, exit {said.code}")
    again = case.again()
    if again.code != 0:
        raise Lost(f"the same command exited {again.code}: {again.err.strip()[-300:]}")


@fault("locks and temporary files of a dead host", SHORT, redo=0)
def stale(case: Case) -> None:
    """Left where they would be by a process that was killed: in the run, and in a stage."""
    case.submit()
    case.until_trainer()
    run = case.root
    planted = [
        run.root / "lock",
        run.journal / ".000002.json.0123456789abcdef0123456789abcdef",
        run.stage("rm").root / ".COMPLETE.json.0123456789abcdef0123456789abcdef",
        run.stage("rm").checkpoints
        / ".writing-0123456789ab"
        / "checkpoint-6"
        / "trainer_state.json",
        run.stage("rm").checkpoints / "checkpoint-9" / "trainer_state.json",
        run.stage("rm").attempts / ".1.json.0123456789abcdef0123456789abcdef",
        run.root.parent / ".new-0123456789abcdef0123456789abcdef" / "plan.json",
    ]
    chosen = case.rng.sample(planted, case.rng.randint(3, len(planted)))
    for path in chosen:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.write_text("{")
    if case.complete():
        raise Missed("the run was over")
    case.hit(f"planted {', '.join(path.name for path in chosen)}")
    said = case.again()
    if said.code != 0:
        raise Lost(f"submit exited {said.code}: {said.err.strip()[-300:]}")
