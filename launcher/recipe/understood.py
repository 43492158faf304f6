"""A recipe's document with what its stages were taken to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.recipe.types import Recipe


def understood(recipe: Recipe) -> Mapping[str, Any]:
    """The resolved document with each stage's `train:` as it was taken: keys under their present
    names, what `methods` says of it among them, and the batch that was made of a pasted one. Loaded
    again it gives the same stages."""
    stages: dict[str, Any] = dict(recipe.resolved["stages"])
    methods: dict[str, Any] = dict(recipe.resolved.get("methods") or {})
    for stage in recipe.stages:
        said = _without_train(stages[stage.name])
        if stage.global_batch is not None:
            said["global_batch"] = stage.global_batch
        if stage.train:
            said["train"] = dict(stage.train)
        stages[stage.name] = said
        if methods.get(stage.method):
            methods[stage.method] = _without_train(methods[stage.method])
    document = {**recipe.resolved, "stages": stages}
    return {**document, "methods": methods} if methods else document


def _without_train(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "train"}
