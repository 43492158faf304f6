"""The library's rewards. Each gives one number a completion, or None where it has nothing to say.

All take the texts of the completions first, then the columns of the data. Their options are those
of `launcher.recipe.library.LIBRARY`, checked with the recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launcher.errors import UsageError
from launcher.worker.rewards import latex
from launcher.worker.rewards.of_trl import right_in_latex
from launcher.worker.rewards.patience import TooSlow, at_most

Rewards = list[float | None]
Function = Callable[..., Rewards]

# A sign after a digit is a range or a difference: 3-4.
_NUMBER = re.compile(
    r"(?:(?<!\d)[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
    r"(?:\s?/\s?\d+)?"
)
_STEP = re.compile(
    r"^\s*(?:\d+\.|[-*])\s|\bStep \d+:|\b(?:First|Second|Third|Next|Then|Finally),", re.MULTILINE
)
TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")
"""Of R1's format."""
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
    return [_within(size, min, max) for size in _sizes(texts, sizes, unit)]


def cosine_length(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    sizes: Sequence[int],
    column: str,
    after: str | None,
    correct: str,
    max: int,
    unit: str,
    right_short: float,
    right_long: float,
    wrong_short: float,
    wrong_long: float,
) -> Rewards:
    """From the value for short completions to that for long ones, along half a cosine up to `max`.

    What is right has one pair of values, what is wrong another: a short right answer is best, and
    a short wrong one worst (Yeo et al. 2025, arXiv:2502.03373, appendix C.1). None where the row
    has no answer.
    """
    found: Rewards = []
    rights = _right(texts, columns, column, after, correct, "cosine_length")
    for right, size in zip(rights, _sizes(texts, sizes, unit), strict=True):
        if right is None:
            found.append(None)
            continue
        short, long = (right_short, right_long) if right else (wrong_short, wrong_long)
        share = 1.0 if size > max else size / max
        found.append(long + (short - long) * (1 + math.cos(share * math.pi)) / 2)
    return found


def brevity(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    sizes: Sequence[int],
    prompts: Sequence[Any],
    column: str,
    after: str | None,
    correct: str,
    unit: str,
) -> Rewards:
    """0.5 for the shortest completion of a prompt, falling in a line to −0.5 for its longest; what
    is wrong gets 0 at most (Kimi k1.5, arXiv:2501.12599). 0 where all are of one length, None where
    the row has no answer.

    Completions of one prompt are those of the same call.
    """
    groups: dict[str, list[int]] = {}
    sizes = _sizes(texts, sizes, unit)
    for prompt, size in zip(prompts, sizes, strict=True):
        groups.setdefault(repr(prompt), []).append(size)
    found: Rewards = []
    rights = _right(texts, columns, column, after, correct, "brevity")
    for right, prompt, size in zip(rights, prompts, sizes, strict=True):
        least, most = min(groups[repr(prompt)]), max(groups[repr(prompt)])
        place = 0.5 if most == least else (size - least) / (most - least)
        found.append(None if right is None else 0.5 - place if right else min(0.0, 0.5 - place))
    return found


def tag_count(
    texts: Sequence[str], columns: Mapping[str, Sequence[Any]], *, tags: Sequence[str] | None
) -> Rewards:
    """The share of `tags` that stand in the completion exactly once; by default those around a
    thought and an answer, each on a line of its own."""
    wanted = tags or TAGS
    return [sum(text.count(tag) == 1 for tag in wanted) / len(wanted) for text in texts]


def reasoning_steps(
    texts: Sequence[str], columns: Mapping[str, Sequence[Any]], *, steps: int
) -> Rewards:
    """Marks of steps over `steps`, at most 1: numbered or dashed lines, `Step 1:`, `First,`, …."""
    return [min(1.0, len(_STEP.findall(text)) / steps) for text in texts]


def repetition(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    *,
    ngram: int,
    ignore_case: bool,
    most: float,
) -> Rewards:
    """Minus the share of word n-grams that were there before, times `most`; 0 without any."""
    found: Rewards = []
    for text in texts:
        words = (text.casefold() if ignore_case else text).split()
        grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
        found.append(most * (len(set(grams)) / len(grams) - 1) if grams else 0.0)
    return found


FUNCTIONS: Mapping[str, Function] = {
    "exact_match": exact_match,
    "numeric_answer": numeric_answer,
    "regex_format": regex_format,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "length": length,
    "cosine_length": cosine_length,
    "brevity": brevity,
    "repetition": repetition,
}


def _right(
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    column: str,
    after: str | None,
    correct: str,
    name: str,
) -> Rewards:
    """1 where the answer is right, as `correct` says; None where the row has none."""
    _column(columns, column, name)
    if correct == "numeric":
        return numeric_answer(texts, columns, column=column, after=after, tolerance=1e-6)
    if correct == "exact":
        return exact_match(texts, columns, column=column, after=after, ignore_case=False)
    if after is not None:
        texts = [latex.of_an_end(_tail(text, after)) for text in texts]
    return right_in_latex(texts, columns[column])


def _sizes(texts: Sequence[str], tokens: Sequence[int], unit: str) -> Sequence[int]:
    """The length of each completion in `unit`."""
    if unit == "words":
        return [len(text.split()) for text in texts]
    return [len(text) for text in texts] if unit == "characters" else tokens


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
