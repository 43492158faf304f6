"""What a tokenizer is, read from its files: chat template, special tokens, vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.models.cache import folder_of
from launcher.models.types import Tokenizer

_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes without special tokens of their own."""


def tokenizer_of(reference: str, cache: Path | None = None) -> Tokenizer | None:
    """The tokenizer at a folder, or of a model in the hub's cache on disk; None where there is none
    here, or its files cannot be read. Nothing is downloaded."""
    folder = folder_of(reference, cache)
    return read_tokenizer(folder, reference) if folder is not None else None


def read_tokenizer(folder: Path, name: str) -> Tokenizer | None:
    """The tokenizer whose files lie in `folder`; None without a readable tokenizer_config.json."""
    config = _object(folder / "tokenizer_config.json")
    if config is None:
        return None
    special = {**(_object(folder / "special_tokens_map.json") or {}), **config}
    vocabulary = _vocabulary(folder / "tokenizer.json")
    return Tokenizer(
        name=name,
        template=_template(folder, config),
        eos=_token(special.get("eos_token")),
        pad=_token(special.get("pad_token")),
        bos=_token(special.get("bos_token")),
        vocabulary=vocabulary,
        rows=_rows(folder / "config.json"),
        stops=_stops(folder),
        plain=config.get("tokenizer_class", _PLAIN[0]) in _PLAIN,
    )


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template that is used unless another is named; a file of its own goes first."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _token(stated: object) -> str | None:
    if isinstance(stated, dict):
        stated = stated.get("content")
    return stated if isinstance(stated, str) else None


def _vocabulary(path: Path) -> Mapping[str, int] | None:
    if not path.is_file():
        return None
    from launcher.models.vocabulary import read_vocabulary

    return read_vocabulary(path)


def _rows(path: Path) -> int | None:
    """Rows of the model's embedding; None where its config.json does not say."""
    config = _object(path) or {}
    inner = config.get("text_config")
    size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return size if isinstance(size, int) and size > 0 else None


def _stops(folder: Path) -> frozenset[int]:
    """As transformers has it: the model's config counts where there is no generation config."""
    config = _object(folder / "generation_config.json")
    if config is None:
        config = _object(folder / "config.json") or {}
    stated = config.get("eos_token_id")
    numbers = stated if isinstance(stated, list) else [stated]
    return frozenset(number for number in numbers if isinstance(number, int))


def _object(path: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
