"""How long the sequences of a stage are, as far as its recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

DEFAULT_MAX_LENGTH = 1024
"""`max_length` of TRL's SFT and reward configs."""
DEFAULT_PROMPT = 512
"""Assumed longest prompt where `data.max_prompt_tokens` does not say."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest sequence: a prompt (0 offline) and what follows it."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        return self.prompt + self.completion


def lengths(stage: Stage, shape: ModelShape) -> Lengths:
    """The longest sequence that the stage trains on or generates."""
    if METHODS[stage.method].generates:
        prompt = stage.data.max_prompt_tokens if stage.data is not None else None
        return Lengths(prompt or DEFAULT_PROMPT, completion_tokens(stage))
    if "max_length" in stage.train and stage.train["max_length"] is None:
        return Lengths(0, shape.max_positions)
    return Lengths(0, whole(stage.train, "max_length", DEFAULT_MAX_LENGTH))


def completion_tokens(stage: Stage) -> int:
    """The longest completion of a stage that generates."""
    key, default = METHODS[stage.method].completion
    return whole(stage.train, key, default)


def whole(train: Mapping[str, Any], key: str, default: int) -> int:
    """`train[key]` where it is a whole number, else `default`."""
    value = train.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
