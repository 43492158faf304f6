"""The plan's ladder, as far as a submission needs it."""

from __future__ import annotations

from launcher.plan.types import StagePlan


def rungs(planned: StagePlan) -> int:
    """How many the stage has, the plan as it stands not counted."""
    return len(getattr(planned, "ladder", ()))


def at(planned: StagePlan, rung: int) -> StagePlan:
    """The stage's plan on a rung of its ladder; 0: as it stands."""
    return planned if rung == 0 else planned.at(rung)  # type: ignore[attr-defined]
