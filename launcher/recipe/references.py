"""The models of a stage, and so the stages that it waits for."""

from __future__ import annotations

from collections.abc import Iterable

from launcher.recipe import paths
from launcher.recipe.document import Node
from launcher.recipe.methods import METHODS, Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.schema import ROLES
from launcher.recipe.types import stage_of

OWN_MODEL = "model"
"""The reference that stands for the recipe's top-level `model`."""
_NOTHING = ("none", "null", "no", "nothing")
"""Words that are meant for no model, and would be read as hub names."""


def models(reading: Reading, node: Node, at: str, method: Method) -> dict[str, str]:
    """Role → model reference, each checked; the recipe's `model` in the main role by default."""
    for role in ROLES:
        given = node.get(role)
        if given is not None and role not in method.roles:
            text = f"{method.name} has no {role}; "
            text += f"its roles are {', '.join(method.roles)}" if method.roles else "use `inputs`"
            reading.wrong_key(given, f"{at}.{role}", text)
    found: dict[str, str] = {}
    for role in method.roles:
        given, key = node.get(role), f"{at}.{role}"
        if given is None and role == method.main_role and role not in node.items:
            given = reading.document.get("model")
        if given is not None:
            model = reference(reading, given, at, key, _wanted(role))
            if model is not None:
                found[role] = model
        elif role in method.required_roles and node.get("use") is None:
            way = f"{method.name} needs a {role}: stage:NAME, a folder or a hub name"
            if role == method.main_role:
                way += ", or the recipe's `model`"
            reading.missing(node, key, way)
    return found


def candidates(reading: Reading, node: Node, at: str, method: Method) -> dict[str, str]:
    """`evaluate`: label → model reference."""
    given = node.get("candidates")
    if given is None or not given.items:
        if method.name == "evaluate" and node.get("use") is None:
            text = "evaluate needs at least one model: label → reference"
            reading.missing(node, f"{at}.candidates", text)
        return {}
    found: dict[str, str] = {}
    for label, entry in given.items.items():
        if entry.value is not None:
            model = reference(reading, entry, at, f"{at}.candidates.{label}", ("policy",))
            if model is not None:
                found[label] = model
    return found


def baseline(reading: Reading, node: Node, at: str) -> str | None:
    """`evaluate`: the label that win rates are against."""
    given, labels = node.get("baseline"), node.get("candidates")
    if given is None:
        return None
    known = [label for label, entry in labels.items.items() if entry.value] if labels else []
    if given.value not in known:
        near = suggest(str(given.value), known)
        reading.wrong(given, f"{at}.baseline", f"{show(given.value)} is no candidate{near}")
    return str(given.value)


def needs(reading: Reading, node: Node, at: str, references: Iterable[str]) -> tuple[str, ...]:
    """Every upstream stage: those of the model references, then those under `needs`."""
    found = [upstream for reference in references if (upstream := stage_of(reference))]
    given = node.get("needs")
    for index, item in enumerate(given.value if given and isinstance(given.value, list) else ()):
        key, name = f"{at}.needs[{index}]", str(item.value)
        if _there(reading, item, at, key, name):
            found.append(name)
    return tuple(dict.fromkeys(found))


def _there(reading: Reading, node: Node, at: str, key: str, name: str) -> bool:
    stages = reading.stages
    if name not in stages:
        near = suggest(name, tuple(stages))
        reading.wrong(node, key, f"there is no stage {show(name)}{near}")
    elif at == f"stages.{name}":
        reading.wrong(node, key, "the stage needs itself")
    else:
        return True
    return False


def reference(
    reading: Reading, node: Node, at: str, key: str, wanted: tuple[str, ...]
) -> str | None:
    """A model reference of the stage at `at`; None where it is wrong.

    A stage that it names is checked to be there and to give one of `wanted` (results of methods).
    """
    own = reading.document.get("model")
    if node.value == OWN_MODEL and own is None:
        text = "stands for the recipe's own `model`, and the recipe names none; state it at the top"
        reading.wrong(node, key, f"{show(OWN_MODEL)} {text}")
        return None
    if node.value == OWN_MODEL and own is not None:
        node = own
    if str(node.value).lower() in _NOTHING:
        text = f"{show(node.value)} is read as a model's name; to leave it out, write null"
        reading.wrong(node, key, text)
        return None
    upstream = stage_of(str(node.value))
    if upstream is None:
        judge = wanted == ("reward_model",)
        return reading.path(node, key, paths.reward_model if judge else paths.model)
    if not _there(reading, node, at, key, upstream):
        return None
    given = _result(reading.stages[upstream])
    if given not in wanted and reading.stages[upstream].get("method") is not None:
        fitting = [
            name
            for name, stage in reading.stages.items()
            if _result(stage) in wanted and at != f"stages.{name}"
        ]
        there = f"; there is {', '.join(f'stage:{name}' for name in fitting)}" if fitting else ""
        kinds = " or ".join(_words(kind) for kind in wanted)
        gives = (
            "no model (`gives` says what a command leaves)"
            if given is None
            else (f"a {_words(given)}")
        )
        text = f"stage {upstream} gives {gives}, not a {kinds}{there}"
        reading.wrong(node, key, text)
        return None
    return str(node.value)


def _result(stage: Node) -> str | None:
    method, gives = stage.get("method"), stage.get("gives")
    result = METHODS[str(method.value)].result if method else None
    return str(gives.value) if result is None and gives is not None else result


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _wanted(role: str) -> tuple[str, ...]:
    if role == "reward_model":
        return ("reward_model",)
    # A value model may start from either; the first PPOs for language took the reward model.
    return ("reward_model", "policy") if role == "value_model" else ("policy",)
