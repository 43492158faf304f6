"""Nodes ask nobody: what a stage needs from a hub was fetched before it was queued."""

from __future__ import annotations

from collections.abc import Mapping

_DEFAULTS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A tracker that cannot be reached would hold a training up, or end it.
    "WANDB_MODE": "offline",
}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What keeps a trainer from the network; what profile, recipe or user set themselves stays.

    Who says that nodes may ask the hub (`HF_HUB_OFFLINE: "0"`) says it of all its libraries.
    """
    asked = environment.get("HF_HUB_OFFLINE")
    own = {"HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
    defaults = {k: v if asked is None or k not in own else asked for k, v in _DEFAULTS.items()}
    return {name: value for name, value in defaults.items() if name not in environment}
