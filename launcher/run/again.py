"""Running stages again though they are complete: what they left goes aside, and is never deleted.

The journal says `again` before the first file moves and `cleared` after the last. A command that
was killed in between is gone on with by the next that acts, and no job of the stage is sent before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.records import files, journal
from launcher.records.paths import RunPaths, StagePaths
from launcher.run.state import RunState


def descendants(plan: Plan, first: str) -> tuple[str, ...]:
    """`first` and every stage that builds on it, in run order. Raises UsageError."""
    names = [stage.name for stage in plan.stages]
    if first not in names:
        raise UsageError(f"there is no stage {first}", hint=f"the stages: {', '.join(names)}")
    found = {first}
    for stage in plan.stages:
        if found & set(stage.stage.needs):
            found.add(stage.name)
    return tuple(name for name in names if name in found)


def announce(run: RunPaths, plan: Plan, now: RunState, first: str) -> None:
    """Journal that `first` and all after it are run again.

    Raises UsageError where one of them runs now.
    """
    wanted = descendants(plan, first)
    running = [s.name for s in now.stages if s.name in wanted and s.state == "running"]
    if running:
        raise UsageError(
            f"stage {running[0]} of {run.root.name} runs",
            hint=f"launcher cancel {run.root.name} ends it first",
        )
    # The last first: whoever is killed amid it leaves no stage finished of what is run again.
    for name in reversed(wanted):
        if plan.stage(name).stage.use is None:
            event = journal.Event("again", time.time(), name, detail=f"from {first} on")
            journal.append(run.journal, event)


def clear(run: RunPaths, events: Sequence[journal.Event]) -> bool:
    """Put aside what stages that are to be run again have left. Whether there were any.

    Of whoever begins it, all goes to one folder, named by the event that said so first.
    """
    anew = journal.anew(events)
    for stage, number in anew.items():
        _put_aside(run.stage(stage), number)
        journal.append(run.journal, journal.Event("cleared", time.time(), stage))
    return bool(anew)


def _put_aside(stage: StagePaths, number: int) -> None:
    """Move all but the logs, which every job writes under its own id; COMPLETE first."""
    if not stage.root.is_dir():
        return
    left = [p for p in stage.root.iterdir() if p != stage.logs and not p.name.startswith("old-")]
    for path in sorted(left, key=lambda path: path != stage.complete):
        path.rename(files.private_folder(stage.old(number)) / path.name)
