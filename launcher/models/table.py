"""The shapes of common open models, for when neither a folder nor the hub cache has them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from launcher.models.read import read_shape
from launcher.models.types import ModelShape

_FILE = Path(__file__).with_name("table.json")


def known(name: str) -> ModelShape | None:
    """The shape of the hub model of this name, in any case of letters; None where it is not in."""
    found = _index().get(name.lower())
    if found is None:
        return None
    hub_name, positions, config = found
    return read_shape(config | {"max_position_embeddings": positions}, hub_name, "table")


def names() -> list[str]:
    """Every hub name of the table."""
    return [name for name, _, _ in _index().values()]


@lru_cache(maxsize=1)
def table() -> dict[str, ModelShape]:
    """Hub name → shape, of the whole table."""
    return {name: shape for name in names() if (shape := known(name)) is not None}


@lru_cache(maxsize=1)
def rows() -> list[dict[str, Any]]:
    """The file as it stands: `names` (name → longest context), the `config` that they share, as
    published in their `config.json`, and their published number of `parameters`."""
    loaded: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return loaded


@lru_cache(maxsize=1)
def _index() -> dict[str, tuple[str, int, dict[str, Any]]]:
    return {
        name.lower(): (name, positions, row["config"])
        for row in rows()
        for name, positions in row["names"].items()
    }
