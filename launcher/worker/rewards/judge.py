"""One judge of completions, called as TRL calls a reward function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from launcher.errors import UsageError
from launcher.worker.rewards.called import Called
from launcher.worker.rewards.library import FUNCTIONS, Rewards

_OF_THE_TRAINER = ("trainer_state", "log_extra", "log_metric", "environments")


class Judge:
    """What every judge shares: a name for the logs, and completions without padding."""

    def __init__(self, label: str) -> None:
        self.label = self.__name__ = label
        self._ends: frozenset[int] = frozenset()

    def attach(self, trainer: Any) -> None:
        """Know the trainer that asks, once it is built."""
        self._ends = frozenset(trainer.eos_token_ids)

    def written(self, ids: Iterable[int]) -> list[int]:
        """A completion's tokens up to its end token, which is the last where there is one."""
        found = []
        for token in ids:
            found.append(token)
            if token in self._ends:
                break
        return found

    def ended(self, ids: Iterable[int]) -> bool:
        """Whether a completion ended by itself."""
        return any(token in self._ends for token in ids)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> Rewards:
        """A finite number for each completion, or None; raises UsageError for anything else."""
        ids = [self.written(each) for each in completion_ids]
        return self.checked(self.judge(prompts, completions, ids, columns), len(completions))

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: dict[str, Any],
    ) -> Any:
        """What the judge says, unchecked."""
        raise NotImplementedError

    def checked(self, given: Any, wanted: int) -> Rewards:
        if isinstance(given, str) or not hasattr(given, "__len__"):
            raise UsageError(
                f"the judge {self.label} gave {type(given).__name__}",
                hint="return a list of one number (or None) for each completion",
            )
        if len(given) != wanted:
            raise UsageError(
                f"the judge {self.label} gave {len(given)} values for {wanted} completions",
                hint="return one number (or None) for each completion, in their order",
            )
        return [self._number(value, place) for place, value in enumerate(given)]

    def _number(self, value: Any, place: int) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or isinstance(value, str):
            raise UsageError(
                f"the judge {self.label} gave {value!r} for completion {place}",
                hint="return finite numbers, and None where a completion cannot be judged",
            )
        return number


class LibraryJudge(Judge):
    """A function of the library, with its options."""

    def __init__(self, label: str, name: str, options: dict[str, Any]) -> None:
        super().__init__(label)
        self._name, self._options = name, options

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: dict[str, Any],
    ) -> Rewards:
        options = dict(self._options)
        if "unit" in options:
            options["sizes"] = [len(ids) for ids in completion_ids]
        if self._name == "brevity":
            options["prompts"] = prompts
        of_the_data = {k: v for k, v in columns.items() if k not in _OF_THE_TRAINER}
        return FUNCTIONS[self._name](
            [content(completion) for completion in completions], of_the_data, **options
        )


class UserJudge(Judge):
    """A function of the user's or of TRL's, called with TRL's keywords."""

    def __init__(self, label: str, function: Called) -> None:
        super().__init__(label)
        self._function = function

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: dict[str, Any],
    ) -> Any:
        return self._function(
            {
                "prompts": list(prompts),
                "completions": list(completions),
                "completion_ids": list(completion_ids),
                **columns,
            }
        )


def content(completion: Any) -> str:
    """The text of a completion: itself, or what its messages say."""
    if isinstance(completion, str):
        return completion
    return "".join(_said(message.get("content")) for message in completion)


def _said(said: Any) -> str:
    if said is None or isinstance(said, str):
        return said or ""
    return "".join(str(part.get("text", "")) for part in said)
