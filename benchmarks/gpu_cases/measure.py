"""One case from plan to result, through the launcher's own engine of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.gpu_cases.planned import STAGE, Planned
from benchmarks.gpu_cases.result import Machine, Result
from launcher.records import attempts, progress
from launcher.records.attempts import Attempt
from launcher.records.paths import RunPaths, StagePaths
from launcher.run import act, folder, local_chain

POLL_S = 0.1
SAVE_S = 5.0
"""What a case may take to save its model. The memory of the device is not at stake any more."""
_END_S = 20


def measure(planned: Planned, machine: Machine, runs: Path, until: float) -> Result | None:
    """What the attempt's receipt says; None where it did not end `until` (of `time.monotonic`).

    Nothing of the run is left. Raises LauncherError where it could not be started.
    """
    began = time.monotonic()
    run, _ = folder.create(runs, planned.plan, planned.recipe.resolved, new=True)
    stage = run.stage(STAGE)
    try:
        act.submit(run, planned.plan)
        saving = _wait(run, stage, until)
        receipt = _receipt(stage)
        if receipt is None or (saving is None and time.monotonic() >= until):
            return None
    finally:
        _end(run)
        shutil.rmtree(run.root, ignore_errors=True)
    predicted = planned.stage.prediction
    return Result(
        case=planned.case,
        machine=machine,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        fits=planned.fits,
        estimated={each.name: each.items for each in planned.stage.estimate.phases},
        margin=planned.stage.margin,
        step_seconds=predicted.step_seconds if predicted is not None else None,
        outcome="saved in part" if saving else receipt.outcome or "unknown",
        out_of_memory=receipt.out_of_memory,
        message=receipt.failure.message[:300] if receipt.failure and not saving else None,
        measured=receipt.measured,
        seconds=round(time.monotonic() - began, 1),
    )


def _wait(run: RunPaths, stage: StagePaths, until: float) -> bool | None:
    """Return when the run is over: of itself (False), ended in its save (True) or for want of time
    (None)."""
    while local_chain.holder(run) is not None:
        now = progress.read(stage)
        if now is not None and now.phase == "save" and time.time() - now.phase_started > SAVE_S:
            _end(run)
            return True
        if time.monotonic() >= until:
            _end(run)
            return None
        time.sleep(POLL_S)
    return False


def _end(run: RunPaths) -> None:
    """End the run's chain at once; what it has started ends with it, and leaves its receipt."""
    chain = local_chain.holder(run)
    if chain is not None:
        with suppress(ProcessLookupError):
            os.kill(chain.pid, signal.SIGKILL)


def _receipt(stage: StagePaths) -> Attempt | None:
    """The attempt, once it says how it ended; None where it never does."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        found = attempts.read(stage.attempts)
        if found and found[-1].outcome is not None:
            return found[-1]
        time.sleep(POLL_S)
    return None
