"""What a stage may take from the recipe as a whole: adapter, resources, environment and scalars."""

from __future__ import annotations

import re
from typing import Any

from launcher.recipe import environment
from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.problems import join, show
from launcher.recipe.reading import Reading
from launcher.recipe.types import Peft, Resources
from launcher.recipe.values import MEMORY_HELP, SPAN_HELP, TIME_HELP, gib, minutes, seconds


def shared(reading: Reading, node: Node, key: str) -> Node | None:
    """The stage's own entry, which a null empties, else the recipe's."""
    return node.get(key) if key in node.items else reading.document.get(key)


def value(reading: Reading, node: Node, key: str, default: Any) -> Any:
    found = shared(reading, node, key)
    return default if found is None else found.value


def peft(reading: Reading, node: Node, at: str, method: Method) -> Peft | None:
    """The adapter; None for full training."""
    if method.config is None or method.result == "report":
        given = node.get("peft")
        if given is not None:
            reading.wrong_key(given, f"{at}.peft", f"{method.name} trains nothing")
        return None
    given = shared(reading, node, "peft")
    if given is None:
        return None
    known: dict[str, Any] = {}
    for key, entry in given.items.items():
        if isinstance(entry.value, list):
            known[key] = tuple(str(item.value) for item in entry.value)
        elif entry.value is not None:
            known[key] = entry.value
    targets = known.get("targets")
    if isinstance(targets, str) and re.fullmatch(r"\w+", targets):
        # PEFT takes a text as a pattern of whole paths, which no name is.
        known["targets"] = (targets,)
    return Peft(**known)


def resources(reading: Reading, node: Node, at: str) -> Resources:
    """The stage's pins over the recipe's, key by key; `auto` and null pin nothing."""
    own, run_wide = node.get("resources"), reading.document.get("resources")
    entries: dict[str, tuple[str, Node]] = {}
    for block, place in ((run_wide, "resources"), (own, f"{at}.resources")):
        for key, entry in block.items.items() if block else ():
            entries[key] = (place, entry)
    known: dict[str, Any] = {}
    for key, (place, entry) in entries.items():
        if entry.value is None or entry.value == "auto":
            continue
        if key == "time":
            known["time_minutes"] = minutes(str(entry.value)) or None
            if known["time_minutes"] is None:
                text = f"got {show(entry.value)}, expected {TIME_HELP}, above zero"
                reading.wrong(entry, f"{place}.{key}", text)
        elif key == "hang_timeout":
            known["hang_timeout_s"] = seconds(str(entry.value)) or None
            if known["hang_timeout_s"] is None:
                text = f"got {show(entry.value)}, expected {SPAN_HELP}, above zero"
                reading.wrong(entry, f"{place}.{key}", text)
        elif key == "host_memory":
            known["host_memory_gib"] = gib(str(entry.value)) or None
            if known["host_memory_gib"] is None:
                text = f"got {show(entry.value)}, expected {MEMORY_HELP}"
                reading.wrong(entry, f"{place}.{key}", text)
        else:
            known[key] = entry.value
    gpus, nodes = known.get("gpus"), known.get("nodes")
    if gpus and nodes and gpus % nodes:
        place, entry = entries["gpus"]
        reading.wrong(entry, f"{place}.gpus", f"{gpus} GPUs do not divide over {nodes} nodes")
    return Resources(**known)


def env(reading: Reading, node: Node, at: str) -> dict[str, str]:
    """The recipe's variables with the stage's on top; a null takes one out."""
    found: dict[str, str] = {}
    for block, place in ((reading.document.get("env"), "env"), (node.get("env"), f"{at}.env")):
        for name, entry in block.items.items() if block else ():
            refused = environment.refusal(name)
            if refused:
                reading.wrong_key(entry, join(place, name), f"not set: {refused}")
            elif entry.value is None:
                found.pop(name, None)
            else:
                found[name] = str(entry.value)
    return found
