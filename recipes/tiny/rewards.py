"""A reward that even a random model can earn, and so learn from, in seconds."""

from __future__ import annotations

from typing import Any


def early(completions: list[Any], **_columns: Any) -> list[float]:
    """The share of each answer's characters that are letters from a to m; 0 for an empty one."""
    return [
        sum("a" <= c <= "m" for c in text) / max(1, len(text)) for text in map(_text, completions)
    ]


def _text(completion: Any) -> str:
    """Of a text, or of the messages that a conversation is answered with."""
    return str(completion if isinstance(completion, str) else completion[0]["content"])
