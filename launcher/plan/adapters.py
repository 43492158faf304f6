"""Whether a stage trains a whole model, and the modules that its adapter names are in it. Pure.

PEFT passes over a name that it does not find beside others that it does, and a worker learns of
the rest only with the model loaded. Of a model whose modules are not known nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.errors import UsageError
from launcher.memory import lora, modules
from launcher.memory.models import Resident
from launcher.models.types import ModelShape
from launcher.recipe.adapters import merge
from launcher.recipe.problems import show, suggest
from launcher.recipe.types import Peft, Stage

ALL_LINEAR = "all-linear"
_READS_HEAD = ("sft", "dpo", "kto", "ppo", "grpo", "rloo")
"""Methods whose trainer multiplies by the head's weight itself, past an adapter on it."""


def check_whole_models(stage: Stage, models: Sequence[Resident]) -> None:
    """Raises UsageError, with the key, where what the stage trains is an adapter alone, whose
    weights no trainer would find. `models` are those of the stage."""
    for model in models:
        if model.trained and model.shape.adapter:
            name = model.shape.name.partition("@")[0]
            raise UsageError(
                f"stages.{stage.name}.{model.role}: {model.shape.name} is an adapter, and no whole"
                f" model; name the folder that this makes of it and its base: {merge(name, name)}"
            )


def check_adapter(stage: Stage, shape: ModelShape) -> None:
    """Raises UsageError, with the key, for a module that the model of the stage has not, and for an
    adapter on a head that would not train. `shape` is that of the model that the stage trains."""
    peft = stage.peft
    if peft is None or not modules.known(shape):
        return
    place, layers = f"stages.{stage.name}.peft", modules.layers(shape)
    adapted = (
        _matched(peft.targets, layers, shape, f"{place}.targets")
        if isinstance(peft.targets, str)
        else _named(peft.targets, layers, shape, f"{place}.targets")
    )
    if not isinstance(peft.targets, str):
        _check_fused(peft.targets, shape, f"{place}.targets")
    _check_whole(peft, (*layers, *modules.others(shape)), shape, f"{place}.modules_to_save")
    head = modules.HEAD
    if head in adapted and head not in peft.modules_to_save and stage.method in _READS_HEAD:
        raise UsageError(
            f"{place}.targets: an adapter on {head} would not train with {stage.method}: TRL"
            " multiplies by its weight directly",
            hint=f"leave it out, or train it whole: `modules_to_save: [{head}]`",
        )


def _matched(pattern: str, layers: Sequence[str], shape: ModelShape, place: str) -> frozenset[str]:
    """The layers that a pattern means. `all-linear` leaves the head out."""
    if pattern.lower() == ALL_LINEAR:
        return frozenset()
    try:
        found = frozenset(path for path in layers if re.fullmatch(pattern, path))
    except re.error as error:
        raise UsageError(
            f"{place}: {show(pattern)} is no regular expression: {error}",
            hint=f"give `{ALL_LINEAR}`, a list of names, or a pattern of whole paths",
        ) from None
    if not found:
        near = suggest(pattern, (ALL_LINEAR, *_names(layers)))
        raise UsageError(
            f"{place}: {show(pattern)} is taken as a pattern, and no layer of {shape.name} has such"
            f" a path{near if near.startswith('; did') else ''}",
            hint=f"give `{ALL_LINEAR}`, a list of names, or a pattern of whole paths (such as"
            f" {layers[1]})",
        )
    return found


def _named(
    names: Sequence[str], layers: Sequence[str], shape: ModelShape, place: str
) -> frozenset[str]:
    """The layers that a list of names means."""
    if not names:
        raise UsageError(
            f"{place}: no layer is named", hint=f"give `{ALL_LINEAR}`, or leave `peft` out"
        )
    found: set[str] = set()
    for name in names:
        meant = {path for path in layers if modules.named(path, name)}
        if not meant:
            raise UsageError(
                f"{place}: {shape.name} has no linear layer or embedding called"
                f" {show(name)}{suggest(name, _names(layers))}"
            )
        found |= meant
    return frozenset(found)


def _check_fused(names: Sequence[str], shape: ModelShape, place: str) -> None:
    """Layers of experts that are one matrix, of which some are named."""
    layers = lora.fused(shape)
    meant = {layer for layer in layers for name in names if modules.named(name, layer)}
    missing = [layer for layer in layers if layer not in meant]
    if meant and missing:
        raise UsageError(
            f"{place}: the experts of {shape.name} hold {' and '.join(layers)} as one matrix, and"
            f" {' and '.join(missing)} is not among the targets",
            hint=f"name {' and '.join(layers)}, or none of them",
        )


def _check_whole(peft: Peft, paths: Sequence[str], shape: ModelShape, place: str) -> None:
    for name in peft.modules_to_save:
        if not any(path.endswith(name) for path in paths):
            raise UsageError(
                f"{place}: {shape.name} has no module called"
                f" {show(name)}{suggest(name, _names(paths))}"
            )


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """The last words of the paths, each once."""
    return tuple(dict.fromkeys(path.rpartition(".")[2] for path in paths))
