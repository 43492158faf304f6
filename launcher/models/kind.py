"""Whether a model writes or judges, as its config.json says."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.models.cache import folder_of
from launcher.models.types import Kind

_ENDS: dict[str, Kind] = {
    "ForCausalLM": "policy",
    "LMHeadModel": "policy",
    "ForSequenceClassification": "reward_model",
}


def kind_of(reference: str, cache: Path | None = None) -> Kind | None:
    """The kind of the model at a folder, or in the hub's cache on disk; None where its config.json
    is not here, or does not say plainly. Nothing is downloaded."""
    folder = folder_of(reference, cache)
    if folder is None:
        return None
    try:
        named = json.loads((folder / "config.json").read_bytes())["architectures"]
        kinds = {kind for name in named for end, kind in _ENDS.items() if str(name).endswith(end)}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return kinds.pop() if len(kinds) == 1 else None
