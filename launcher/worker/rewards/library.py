"""The library's rewards. Each gives one number a completion, or None where it has nothing to say.

All take the texts of the completions first, then the columns of the data. Their options are those
of `launcher.recipe.rewards.LIBRARY`, checked with the recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launcher.errors import UsageError
from launcher.worker.rewards.patience import TooSlow, at_most

Rewards = list[float | None]
Function = Callable[..., Rewards]

# A sign after a digit is a range or a difference: 3-4.
_NUMBER = re.compile(
    r"(?:(?<!\d)[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
    r"(?:\s?/\s?\d+)?"
)
PATTERN_SECONDS = 1.0
"""What a pattern may take for one completion."""


def exact_match(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    column: str,
    after: str | None,
    ignore_case: bool,
) -> Rewards:
    """1 where what follows the last `after` (all, without one) is the row's answer, else 0.

    Spaces around count for nothing, and runs of them as one. None where the row has no answer.
    """

    def plain(text: object) -> str:
        joined = " ".join(str(text).split())
        return joined.casefold() if ignore_case else joined

    answers = _column(columns, column, "exact_match")
    return [
        None if answer is None else float(plain(_tail(text, after)) == plain(answer))
        for text, answer in zip(texts, answers, strict=True)
    ]


def numeric_answer(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    column: str,
    after: str | None,
    tolerance: float,
) -> Rewards:
    """1 where the last number (after the last `after`) is the last number of the row's answer.

    Numbers may have thousands commas, decimals, exponents and be fractions; they are equal within
    `tolerance`, relative to the larger and absolute below 1. None where the answer has none.
    """
    answers = _column(columns, column, "numeric_answer")
    found: Rewards = []
    for text, answer in zip(texts, answers, strict=True):
        wanted = None if answer is None else _last_number(str(answer))
        given = _last_number(_tail(text, after))
        if wanted is None:
            found.append(None)
        elif given is None:
            found.append(0.0)
        else:
            near = math.isclose(given, wanted, rel_tol=tolerance, abs_tol=tolerance)
            found.append(float(near))
    return found


def regex_format(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    pattern: str,
    whole: bool,
) -> Rewards:
    """1 where `pattern` matches the whole completion (or, with `whole: false`, a part of it).

    `.` matches line ends too; spaces around the completion count for nothing. Raises UsageError
    where the pattern takes longer than `PATTERN_SECONDS` for one completion.
    """
    compiled = re.compile(pattern, re.DOTALL)
    match = compiled.fullmatch if whole else compiled.search
    found: Rewards = []
    for text in texts:
        try:
            with at_most(PATTERN_SECONDS):
                found.append(float(match(text.strip()) is not None))
        except TooSlow:
            raise UsageError(
                f"the pattern {pattern!r} took more than {PATTERN_SECONDS:g} s for a completion of"
                f" {len(text)} characters",
                hint="it backtracks: avoid repetitions within repetitions, such as (a+)*",
            ) from None
    return found


def length(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    sizes: Sequence[int],
    min: int | None,
    max: int | None,
    unit: str,
) -> Rewards:
    """1 between `min` and `max`, falling to 0 in a line: at nothing, and at twice `max`.

    `sizes` are the tokens of each completion, its end token included.
    """
    if unit == "words":
        sizes = [len(text.split()) for text in texts]
    elif unit == "characters":
        sizes = [len(text) for text in texts]
    return [_within(size, min, max) for size in sizes]


def repetition(
    texts: Sequence[str], columns: Mapping[str, Sequence[Any]], *, ngram: int
) -> Rewards:
    """Minus the share of word n-grams that were there before: 0 without repetition, to −1."""
    found: Rewards = []
    for text in texts:
        words = text.split()
        grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
        found.append(len(set(grams)) / len(grams) - 1 if grams else 0.0)
    return found


FUNCTIONS: Mapping[str, Function] = {
    "exact_match": exact_match,
    "numeric_answer": numeric_answer,
    "regex_format": regex_format,
    "length": length,
    "repetition": repetition,
}


def _column(columns: Mapping[str, Sequence[Any]], column: str, name: str) -> Sequence[Any]:
    if column not in columns:
        there = ", ".join(sorted(columns)) or "none but the prompt"
        raise UsageError(
            f"{name} compares with the column {column}, and the data has {there}",
            hint="set its option `column`, or map the column with `data.columns`",
        )
    return columns[column]


def _tail(text: str, after: str | None) -> str:
    """What follows the last `after`; nothing where that is not there."""
    if after is None:
        return text
    _, found, rest = text.rpartition(after)
    return rest if found else ""


def _last_number(text: str) -> float | None:
    numbers = _NUMBER.findall(text)
    if not numbers:
        return None
    above, _, below = numbers[-1].replace(",", "").replace(" ", "").partition("/")
    try:
        return float(above) / float(below or 1)
    except (ZeroDivisionError, OverflowError):
        return None


def _within(size: int, least: int | None, most: int | None) -> float:
    if least is not None and size < least:
        return size / least
    if most is not None and size > most:
        return max(0.0, 2 - size / most)
    return 1.0
