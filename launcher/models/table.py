"""The shapes of common open models, for when neither a folder nor the hub cache has them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from launcher.models.types import ModelShape

_FILE = Path(__file__).with_name("table.json")


@lru_cache(maxsize=1)
def table() -> dict[str, ModelShape]:
    """Hub name → shape. The file groups the names that share one, with their published counts."""
    shapes: dict[str, ModelShape] = {}
    for row in rows():
        sizes = {key: value for key, value in row.items() if key not in ("names", "parameters")}
        for name, positions in row["names"].items():
            shapes[name] = ModelShape(name=name, max_positions=positions, **sizes)
    return shapes


def rows() -> list[dict[str, Any]]:
    """The file as it stands: `names` (name → longest context), sizes, published `parameters`."""
    loaded: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return loaded
