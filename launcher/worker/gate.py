"""What a stage's result must keep to, lest the chain stops there."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.errors import UsageError
from launcher.worker.context import Context


def hold(context: Context, metrics: Mapping[str, float]) -> None:
    """Hold the stage's figures to its `gate`. Raises UsageError for the first that misses, and for
    one that the stage does not have; what was trained stays where it is."""
    place = f"stages.{context.stage.name}.gate"
    for figure, bound in context.stage.gate.items():
        value = metrics.get(figure)
        if value is None:
            known = ", ".join(sorted(metrics)) or "none"
            raise UsageError(f"{place}: the result has no figure {figure}", hint=f"it has {known}")
        # Not a number is within no bounds.
        if not (bound.min is None or value >= bound.min):
            raise _missed(
                context, f"{place}: {figure} is {value:.4g}, at least {bound.min:g} asked"
            )
        if not (bound.max is None or value <= bound.max):
            raise _missed(context, f"{place}: {figure} is {value:.4g}, asked: ≤ {bound.max:g}")


def _missed(context: Context, text: str) -> UsageError:
    model, name = context.paths.model, context.stage.name
    if not model.is_dir():
        return UsageError(text)
    return UsageError(
        text, hint=f"the model lies in {model}; `stages.{name}.use={model}` goes on with it"
    )
