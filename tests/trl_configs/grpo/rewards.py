"""Reward functions beside the config that names them."""

from __future__ import annotations

from typing import Any

Chats = list[list[dict[str, str]]]


def accuracy(completions: Chats, solution: list[str], **columns: Any) -> list[float]:
    return [float(s in c[0]["content"]) for c, s in zip(completions, solution, strict=True)]


def tag_count_reward(completions: Chats, **columns: Any) -> list[float]:
    return [c[0]["content"].count("<think>") / 2 for c in completions]
