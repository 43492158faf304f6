"""What a stage is made from, as its plan names it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import msgspec

from launcher.plan.types import Plan
from launcher.recipe.types import Data, Part, Resources, Stage, stage_of

Kind = Literal["stage", "model", "data"]

HubKind = Literal["model", "tokenizer", "data"]

Source = tuple[Kind, str]
"""A stage of the run, by name; or a model or data, as a path or a hub name."""


def sources(plan: Plan, stage: str) -> dict[str, Source]:
    """Key of the recipe → what stands there, of the stage called `stage`."""
    return dict(_sources(plan, plan.stage(stage).stage))


def recipe_digest(plan: Plan, stage: str) -> str:
    """SHA-256 of all that the recipe says of the stage but `resources`: where a stage runs does not
    change what it makes."""
    said = replace(plan.stage(stage).stage, resources=Resources())
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


def _sources(plan: Plan, stage: Stage) -> Iterator[tuple[str, Source]]:
    named: set[str] = set()
    for key, reference in models(stage).items():
        upstream = stage_of(reference)
        if upstream is None:
            yield key, ("model", reference)
            continue
        named.add(upstream)
        use = plan.stage(upstream).stage.use
        yield key, ("stage", upstream) if use is None else ("model", use)
    for name in stage.needs:
        if name not in named and plan.stage(name).stage.use is None:
            yield f"needs.{name}", ("stage", name)
    if stage.data is not None:
        yield from _data(stage.data)


def hub_names(plan: Plan, stage: str) -> Iterator[tuple[HubKind, str, str | None]]:
    """(kind, name, configuration) of everything that the stage reads from the hub."""
    asked = plan.stage(stage).stage
    for key, (kind, name) in sources(plan, stage).items():
        if kind == "model" and _on_hub(name):
            yield ("tokenizer" if key == "tokenizer" else "model"), name, None
    if asked.data is not None:
        parts: tuple[Data | Part, ...] = (asked.data, *asked.data.also)
        named = [(part.path, part.name) for part in parts]
        if asked.data.eval_path is not None:
            named.append((asked.data.eval_path, asked.data.name))
        for path, config in named:
            if _on_hub(path):
                yield "data", path, config


def _on_hub(reference: str) -> bool:
    return not reference.startswith("/")


def models(stage: Stage) -> Mapping[str, str]:
    """Key of the recipe → model reference, for every model that the stage reads."""
    found = dict(stage.models)
    found |= {f"candidates.{label}": model for label, model in stage.candidates.items()}
    found |= {f"rewards.{r.label}": r.model for r in stage.rewards if r.model is not None}
    if stage.command is not None:
        found |= {f"inputs.{label}": model for label, model in stage.command.inputs.items()}
    if stage.tokenizer is not None:
        found["tokenizer"] = stage.tokenizer
    return found


def _data(data: Data) -> Iterator[tuple[str, Source]]:
    yield "data.path", ("data", data.path)
    if data.eval_path is not None:
        yield "data.eval_path", ("data", data.eval_path)
    for index, part in enumerate(data.also):
        yield f"data.also[{index}].path", ("data", part.path)
