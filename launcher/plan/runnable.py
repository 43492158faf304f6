"""What can be planned and not run. Pure."""

from __future__ import annotations

from launcher.errors import UsageError
from launcher.plan.types import Plan, StagePlan


def check_runnable(plan: Plan) -> None:
    """Raises UsageError, naming the stage, where TRL would stop at one."""
    for planned in plan.stages:
        if not planned.runs:
            continue
        if _is_alone(planned):
            raise UsageError(
                f"stages.{planned.name}: KTO compares the rows of a micro-batch, which has one",
                hint="raise `resources.micro_batch`, or use `loss_type: apo_zero_unpaired`",
            )


def _is_alone(planned: StagePlan) -> bool:
    """Whether a row has no other to be compared with, where TRL's loss does."""
    stage = planned.stage
    compares = stage.method == "kto" and stage.train.get("loss_type", "kto") == "kto"
    return compares and planned.micro_batch == 1
