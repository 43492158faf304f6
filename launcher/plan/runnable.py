"""What can be planned and not yet run. Pure."""

from __future__ import annotations

from launcher.errors import UsageError
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.methods import METHODS


def check_runnable(plan: Plan) -> None:
    """Raises UsageError, naming the stage, where this version can estimate and plan a stage and
    has no worker for it, or what it stands on cannot do it."""
    for planned in plan.stages:
        if not planned.runs:
            continue
        if not METHODS[planned.stage.method].runs:
            raise UsageError(
                f"stages.{planned.name}: `{planned.stage.method}` can be estimated and planned, not"
                " yet run by this version",
                hint="`launcher plan` and `launcher estimate` say what it would take",
            )
        refusal = _of_trl(planned) or _of_quantization(planned, on_cpu=plan.cluster.device == "cpu")
        if refusal is not None:
            what, hint = refusal
            raise UsageError(f"stages.{planned.name}{what}", hint=hint)


def _of_trl(planned: StagePlan) -> tuple[str, str] | None:
    """What TRL would stop at on the node."""
    stage = planned.stage
    if (
        stage.method == "kto"
        and stage.train.get("loss_type", "kto") == "kto"
        and planned.micro_batch == 1
    ):
        return (
            ": KTO compares the rows of a micro-batch, and one row is all that fits",
            "ask for more GPU memory, a smaller `max_length`, or `loss_type: apo_zero_unpaired`",
        )
    return None


def _of_quantization(planned: StagePlan, *, on_cpu: bool) -> tuple[str, str] | None:
    peft = planned.stage.peft
    if peft is None or peft.quantization is None:
        return None
    return None
