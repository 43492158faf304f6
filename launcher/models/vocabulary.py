"""The tokens of a tokenizer.json. A file of megabytes, of which the merges are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


class _Added(msgspec.Struct):
    content: str
    id: int


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[Any] | None = None


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []


def read_vocabulary(path: Path) -> Mapping[str, int] | None:
    """Token → its number, the added ones among them; None where the file does not tell."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError):
        return None
    stated = read.model.vocab
    if stated is None:
        return None
    if isinstance(stated, list):  # of a Unigram model: pairs of token and score
        stated = {
            str(pair[0]): number
            for number, pair in enumerate(stated)
            if isinstance(pair, list) and pair
        }
    return {**stated, **{added.content: added.id for added in read.added_tokens}}
