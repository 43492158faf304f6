"""Rows that are conversations, and prompts of text that stand in them as well. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAIR = ("chosen", "rejected")
TURNS = "conversations"
"""The column of ShareGPT's turns."""
_SPEAKERS = {"human": "user", "gpt": "assistant"}
"""What ShareGPT calls who speaks → the role that chat templates know."""


def is_chat(value: object) -> bool:
    """Whether a column's value is messages, each with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], Mapping)
        and "role" in value[0]
        and "content" in value[0]
    )


def as_messages(turns: object) -> list[dict[str, Any]] | None:
    """ShareGPT's turns (`from`, `value`) as messages; None where they are none.

    TRL would keep the names of who speaks, which chat templates pass over in silence.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return None
    return [
        {
            "role": _SPEAKERS.get(role := turn.get("from") or turn.get("role"), role),
            "content": turn["content"] if turn.get("content") is not None else turn.get("value"),
        }
        for turn in turns
    ]


def turns_of(row: Mapping[str, Any]) -> str | None:
    """The column of a row of `sft` whose turns are to become its messages; None: none."""
    column = "messages" if "messages" in row else TURNS
    if "completion" in row or is_chat(row.get("messages")) or as_messages(row.get(column)) is None:
        return None
    return column


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
