"""What is wrong with a recipe: every problem with its place, gathered and raised at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import UsageError

# Amid a word, as in "a-risk-free-…", it is none.
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{10,})"
)


@dataclass(frozen=True)
class Place:
    """Where something was written."""

    file: str
    """As the user named it, or `argument 'a.b=1'` for an override."""
    line: int
    """From 1; 0: no line (an override, or the file as a whole)."""
    column: int
    folder: Path
    """What a relative path that is written here is relative to."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    place: Place
    key: str
    """The dotted path of the key; empty for the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.place} {self.key}: {self.text}" if self.key else f"{self.place}: {self.text}"


class RecipeErrors(UsageError):
    """Every problem of a recipe, in the order of the files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def has_secret(text: str) -> bool:
    """Whether `text` holds what looks like an access token."""
    return _SECRET.search(text) is not None


def show(value: object) -> str:
    """`value` as an error may print it: short, on one line, printable, without access tokens."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return str(value)
    text = ascii(_SECRET.sub("<token>", value))
    return text if len(text) <= 60 else f"{text[:50]}…' ({len(value)} characters)"


def join(path: str, key: str) -> str:
    """The dotted path of `key` under `path`, printable."""
    plain = re.fullmatch(r"[\w./-]{1,60}", key) and not has_secret(key)
    shown = key if plain else show(key)
    return f"{path}.{shown}" if path else shown


def suggest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, else what is allowed, where short."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return ""
    return f"; allowed: {', '.join(known)}" if len(known) <= 24 else "; see `launcher schema`"
