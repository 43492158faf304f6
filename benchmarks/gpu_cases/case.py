"""What is measured: one method on one model under one setting; the grid, and its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, product
from typing import TypeVar

from launcher.recipe.methods import METHODS as METHODS_TABLE

MODELS = ("0.5B", "1.5B", "3B", "7B")
METHODS = ("sft", "reward", "ppo", "dpo", "grpo")
LENGTHS = (512, 1024, 2048, 4096, 8192)
TINY = "tiny"
"""A model of the same family with 64 dimensions, for a machine without a GPU."""

Candidate = TypeVar("Candidate")
_Values = tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Case:
    model: str
    """A size of Qwen2.5, or `TINY`."""
    method: str
    lora: bool
    checkpointing: bool
    length: int
    """Tokens of each sequence; of methods that generate, prompt and completion together."""

    @property
    def name(self) -> str:
        what = f"{self.method} {self.model} {'LoRA' if self.lora else 'full'}"
        return f"{what} {self.rows}×{self.length}{' gc' if self.checkpointing else ''}"

    @property
    def rows(self) -> int:
        """Rows of one forward pass; one forward pass is one optimizer step."""
        # A group of completions has two at least.
        return 2 if self.length <= 2048 or self.method == "grpo" else 1

    @property
    def tokens(self) -> int:
        """Of one forward pass."""
        return self.rows * self.length * METHODS_TABLE[self.method].sequences_per_row

    @property
    def completion(self) -> int:
        """Tokens that are generated, by a method that does: few, since they take the time."""
        return min(256, self.length // 2)


def grid(methods: Iterable[str]) -> list[Case]:
    """Every combination."""
    return [Case(*each) for each in product(MODELS, methods, (False, True), (True, False), LENGTHS)]


def small() -> list[Case]:
    """A case a method, which a processor does in seconds."""
    return [
        Case(TINY, method, lora, not lora, 64)
        for method, lora in zip(METHODS, (False, True, True, False, False), strict=True)
    ]


def ordered(
    candidates: Sequence[Candidate],
    case_of: Callable[[Candidate], Case],
    seconds: Callable[[Candidate], float],
) -> list[Candidate]:
    """The cheapest information first.

    What a case tells is the pairs and triples of values (this method on this size, LoRA at this
    length) that no case before it had; next comes the one with most of them a second, and once all
    are seen the shortest.
    """
    left = {_combinations(case_of(each)): each for each in candidates}
    seen: set[_Values] = set()
    order = []
    while left:
        told = max(
            left, key=lambda has: (len(has - seen) / seconds(left[has]), -seconds(left[has]))
        )
        seen |= told
        order.append(left.pop(told))
    return order


def _combinations(case: Case) -> frozenset[_Values]:
    values = [(field.name, getattr(case, field.name)) for field in fields(case)]
    return frozenset(each for n in (2, 3) for each in combinations(values, n))
