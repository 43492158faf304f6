"""What can be planned and not yet run. Pure."""

from __future__ import annotations

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage


def check_runnable(plan: Plan) -> None:
    """Raises UsageError, naming the stage, where this version can estimate and plan a stage and
    has no worker for it."""
    for planned in plan.stages:
        reason = _missing(planned.stage) if planned.runs else None
        if reason is not None:
            raise UsageError(
                f"stages.{planned.name}: {reason} can be estimated and planned, not yet run by"
                " this version",
                hint="`launcher plan` and `launcher estimate` say what it would take",
            )


def _missing(stage: Stage) -> str | None:
    if not METHODS[stage.method].runs:
        return f"`{stage.method}`"
    if stage.peft is not None and stage.peft.quantization is not None:
        return "an adapter on a quantized base"
    return None
