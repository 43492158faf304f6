"""TRL's own reward functions, with what they need checked before a model loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from launcher.errors import UsageError
from launcher.recipe.fields import trl_rewards
from launcher.recipe.library import MATH
from launcher.worker.heartbeat import beat
from launcher.worker.rewards import latex
from launcher.worker.rewards.called import Called


class TrlFunction(Called):
    """`name` of `trl.rewards` with its options, told messages even where completions are text, and
    answers as math-verify reads them.

    Raises UsageError where the installed TRL has no such function, refuses the options, or
    math-verify is missing for one that reads LaTeX.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        import trl.rewards

        about = trl_rewards()[name]
        if about["math"]:
            need_math(name)
        function = getattr(trl.rewards, name, None)
        if function is None:
            raise UsageError(f"the TRL on this node has no reward function {name}")
        self.said, self.source = f"trl.rewards {name}", None
        self._math = about["math"]
        try:
            self.takes(function(**options) if about["made"] else partial(function, **options))
        except ValueError as error:
            raise self.blamed(error, "correct the options of the reward") from error

    def __call__(self, keywords: Mapping[str, Any]) -> Any:
        missing = self._needed() - set(keywords)
        if missing:
            raise UsageError(
                f"{self.said.partition(' ')[2]} compares with the column {missing.pop()}, and the "
                f"data has {', '.join(sorted(set(keywords) - _GIVEN)) or 'none but the prompt'}",
                hint="map the column with `data.columns`",
            )
        told = {**keywords, "completions": [_as_messages(c) for c in keywords["completions"]]}
        return self._one_by_one(told) if self._math else super().__call__(told)

    def _one_by_one(self, told: Mapping[str, Any]) -> list[float | None]:
        """With a sign of life for each: math-verify takes up to ten seconds for what is hard to
        read, and five to compare."""
        given: list[float | None] = []
        for place, answer in enumerate(told["solution"]):
            beat("score")
            one = {key: [told[key][place]] for key in ("completions", "completion_ids")}
            given += super().__call__({**told, **one, "solution": [latex.of_a_row(answer)]})
        return given

    def _needed(self) -> set[str]:
        return {"solution"} & self._takes


_GIVEN = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}


def need_math(name: str) -> None:
    """Raises UsageError where math-verify is not installed here, which `name` reads LaTeX with."""
    if find_spec(MATH) is None:
        raise UsageError(
            f"{name} reads answers in LaTeX with math-verify, which is not installed here",
            hint="install it where trainings run: pip install math-verify",
        )


def right_in_latex(texts: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
    """1 where math-verify finds the answer in the text, else 0; None where the answer has none."""
    judge = TrlFunction("accuracy_reward", {})
    nothing: list[list[int]] = [[]] * len(texts)
    given: list[float | None] = judge(
        {"completions": list(texts), "completion_ids": nothing, "solution": list(answers)}
    )
    return given


def _as_messages(completion: Any) -> Any:
    if isinstance(completion, str):
        return [{"role": "assistant", "content": completion}]
    return completion
