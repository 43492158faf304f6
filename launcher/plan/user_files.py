"""The user's own Python files that a plan's stages call. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.plan.types import Plan
from launcher.recipe.library import is_file
from launcher.recipe.types import Stage


def user_files(plan: Plan) -> tuple[str, ...]:
    """Absolute paths, each once, in the order of the stages."""
    functions = (f for planned in plan.stages for f in _functions(planned.stage))
    return tuple(dict.fromkeys(function.rpartition(":")[0] for function in functions))


def _functions(stage: Stage) -> Iterator[str]:
    """Every `/abs/file.py:function` of the stage."""
    named = [score.function for score in stage.scores.values()]
    named += [reward.function for reward in stage.rewards if reward.function is not None]
    yield from (function for function in named if is_file(function))
