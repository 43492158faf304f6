"""A reward of the user's own: what `rewards: {words: ./rewards.py:words}` names."""

from __future__ import annotations

from typing import Any


def words(completions: list[Any], **_columns: Any) -> list[float]:
    """A score an answer: its words, and its different words once more.

    The data set's other columns come as keywords, a list each, in the order of the answers.
    """
    return [float(len(text) + len(set(text))) for text in map(_words, completions)]


def _words(completion: Any) -> list[str]:
    """Of a text, or of the messages that a conversation is answered with."""
    text = completion if isinstance(completion, str) else completion[0]["content"]
    return str(text).lower().split()
