"""Rows that are conversations, and prompts of text that stand in them as well. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAIR = ("chosen", "rejected")


def is_chat(value: object) -> bool:
    """Whether a column's value is messages, each with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], Mapping)
        and "role" in value[0]
        and "content" in value[0]
    )


def beside_chats(row: Mapping[str, Any]) -> bool:
    """Whether the prompt is text and the pair beside it is conversations."""
    return isinstance(row.get("prompt"), str) and all(is_chat(row.get(key)) for key in PAIR)


def repeated(row: Mapping[str, Any]) -> bool:
    """Whether the prompt of such a row stands in both conversations, so that it adds nothing."""
    prompt = row["prompt"].strip()
    return all(any(prompt in _said(turn) for turn in row[key]) for key in PAIR)


def _said(turn: Mapping[str, Any]) -> str:
    """What others than the assistant say in a turn."""
    content = turn.get("content")
    return content if isinstance(content, str) and turn.get("role") != "assistant" else ""
