"""What can be planned and not run. Pure."""

from __future__ import annotations

from launcher.errors import UsageError
from launcher.plan.candidates import least
from launcher.plan.types import Plan


def check_runnable(plan: Plan) -> None:
    """Raises UsageError, naming the stage, where TRL would stop at one."""
    for planned in plan.stages:
        if not planned.runs:
            continue
        if planned.micro_batch < least(planned.stage):
            raise UsageError(
                f"stages.{planned.name}: KTO compares the rows of a micro-batch, which has one",
                hint="raise `resources.micro_batch`, or use `loss_type: apo_zero_unpaired`",
            )
