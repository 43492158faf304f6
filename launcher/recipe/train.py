"""The `train:` block of a stage: renamed, checked, and freed of the keys that the launcher owns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from launcher.recipe.check import check
from launcher.recipe.document import Node, plain
from launcher.recipe.fields import Fields, fields, trl_version
from launcher.recipe.methods import METHODS
from launcher.recipe.owned import BATCH_KEYS, OWNED, OWNED_MODEL_ARGUMENTS
from launcher.recipe.problems import Problem, join, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.renames import REMOVED, modernised


@dataclass(frozen=True)
class Train:
    """The `train:` block of a stage as it was read."""

    values: dict[str, Any]
    """What the config is called with, without the launcher's keys."""
    sequences: int | None = None
    """Sequences of a pasted per-device batch × accumulation; None where there is none."""
    pasted: bool = False
    """Whether there is such a batch, right or wrong."""


def read(reading: Reading, stage: Node, at: str, method: str) -> Train:
    """The `train` block of the stage at `at`."""
    node, path, problems = stage.get("train"), f"{at}.train", reading.problems
    if node is None:
        return Train({})
    if METHODS[method].config is None:
        reading.wrong_key(node, path, f"{method} takes none; write it into `command`")
        return Train({})
    known = fields(method)
    entries = _renamed(node, known, path, reading)
    given = stage.get("global_batch") is not None
    pasted = {} if given else {key: entries[key] for key in BATCH_KEYS if entries.get(key)}
    allowed: dict[str, Node] = {}
    for key, entry in entries.items():
        refusal = known.refused.get(key) or OWNED.get(key)
        if key in pasted or (entry.value is None and refusal):
            continue
        if refusal:
            text = f"not a key of `train` here: {refusal}"
            problems.append(Problem(entry.key_place, join(path, key), text))
        elif key not in known.schemas:
            text = f"no key of {known.config} (TRL {trl_version()})"
            gone = REMOVED.get(key)
            text += f" any more: {gone}" if gone else suggest(key, tuple(known.schemas))
            problems.append(Problem(entry.key_place, join(path, key), text))
        else:
            allowed[key] = entry
    _model_arguments(allowed.get("model_init_kwargs"), join(path, "model_init_kwargs"), problems)
    schema = {"type": "object", "properties": known.schemas, "additionalProperties": False}
    checked = check(replace(node, value=allowed), schema, path, problems)
    values = {
        key: plain(entry)
        for key, entry in (checked.items if checked else {}).items()
        # A null is a value to the config where it takes one, and takes a parent's value back.
        if entry.value is not None or _takes_null(known.schemas[key])
    }
    return Train(values, _sequences(pasted, path, problems), bool(pasted))


def wrong(reading: Reading, stage: Node, at: str, found: Iterable[tuple[str, str]]) -> None:
    """Note what is `found` wrong with keys of the stage's `train`, each where it stands."""
    block = stage.get("train")
    for key, text in found:
        entry = block.get(key) if block is not None else None
        reading.wrong_key(entry if entry is not None else stage, f"{at}.train.{key}", text)


def _renamed(node: Node, known: Fields, path: str, reading: Reading) -> dict[str, Node]:
    entries, changes = modernised(node.items, known.schemas)
    for change in changes:
        if change.wrong:
            reading.wrong_key(change.node, join(path, change.key), change.text)
        else:
            note = f"{join(path, change.key)}: {change.text}"
            reading.warnings.append(f"{change.node.key_place} {note}")
    return entries


def _sequences(pasted: dict[str, Node], path: str, problems: list[Problem]) -> int | None:
    if not pasted:
        return None
    product = 1
    for key, entry in pasted.items():
        schema = {"type": "integer", "minimum": 1}
        if check(entry, schema, join(path, key), problems) is None:
            return None
        assert isinstance(entry.value, int)
        product *= entry.value
    first = BATCH_KEYS[0]
    if first not in pasted:
        key, entry = next(iter(pasted.items()))
        text = f"not a key of `train` here: {OWNED[key]}"
        problems.append(Problem(entry.key_place, join(path, key), text))
        return None
    return product


def _model_arguments(node: Node | None, path: str, problems: list[Problem]) -> None:
    for key, entry in node.items.items() if node else ():
        if key in OWNED_MODEL_ARGUMENTS:
            text = f"not a key of `model_init_kwargs` here: {OWNED_MODEL_ARGUMENTS[key]}"
            problems.append(Problem(entry.key_place, join(path, key), text))


def _takes_null(schema: Any) -> bool:
    kinds = schema.get("type", ())
    return "null" in ([kinds] if isinstance(kinds, str) else kinds) or any(
        _takes_null(branch) for branch in schema.get("anyOf", ())
    )
