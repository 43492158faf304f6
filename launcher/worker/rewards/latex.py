"""Answers in the form in which math-verify reads them: LaTeX between its marks."""

from __future__ import annotations

import re
from typing import Any

_MARKED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\{[A-Za-z ]*\})?")
# Of a sentence, not of a product of letters; or of a text whose answer stands at its end.
_SENTENCE = re.compile(r"[A-Za-z]{3,}|[\n#]")


def of_a_row(answer: Any) -> str:
    """A row's answer as a text that is read whole; "" where it is null.

    LaTeX without `$` is read up to the last number alone: 3 in `3\\pi`, nothing in `x^2`.
    """
    text = "" if answer is None else str(answer).strip()
    if not text or _MARKED.search(text) or _SENTENCE.search(_COMMAND.sub("", text)):
        return text
    return f"${text}$"


def of_an_end(text: str) -> str:
    """What a completion says where only its answer is left of it, in the form of an answer."""
    text = text.strip()
    if not text or "\\boxed" in text:
        return text
    if _MARKED.search(text):
        return f"The answer: {text}"
    return f"\\boxed{{{text.splitlines()[0].rstrip(' .')}}}"
