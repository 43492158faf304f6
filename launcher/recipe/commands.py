"""A program as a stage: `command:` and what belongs to it."""

from __future__ import annotations

import string
from collections.abc import Mapping

from launcher.recipe import paths
from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.references import reference
from launcher.recipe.types import Command

KEYS = ("command", "inputs", "run", "gives")
OUT, MODEL = "out", "model"


def command(reading: Reading, node: Node, at: str, method: Method) -> Command | None:
    """The program; None for other methods."""
    if method.name != "command":
        for key in KEYS:
            given = node.get(key)
            if given is not None:
                text = "only a stage with `method: command` takes it"
                reading.wrong_key(given, f"{at}.{key}", text)
        return None
    given, gives, run = node.get("command"), node.get("gives"), node.get("run")
    inputs = _inputs(reading, node, at)
    if given is None:
        if node.get("use") is None:
            reading.missing(node, f"{at}.command", "a list: the program and its arguments")
        return None
    known = {*inputs, OUT, *((MODEL,) if gives is not None else ())}
    words = given.value if isinstance(given.value, list) else []
    if not words:
        reading.wrong(given, f"{at}.command", "empty; list the program and its arguments")
    for index, word in enumerate(words):
        _check_word(reading, word, f"{at}.command[{index}]", known)
    return Command(
        argv=tuple(str(word.value) for word in words),
        inputs=inputs,
        run=run.value if run is not None else "once",  # type: ignore[arg-type]
        gives=gives.value if gives is not None else None,  # type: ignore[arg-type]
    )


def _inputs(reading: Reading, node: Node, at: str) -> Mapping[str, str]:
    given, found = node.get("inputs"), {}
    for label, entry in given.items.items() if given else ():
        if label in (OUT, MODEL):
            reading.wrong_key(entry, f"{at}.inputs.{label}", f"{{{label}}} is the stage's own")
        elif entry.value is not None:
            key = f"{at}.inputs.{label}"
            model = reference(reading, entry, at, key, ("policy", "reward_model"))
            if model is not None:
                found[label] = model
    return found


def _check_word(reading: Reading, node: Node, key: str, known: set[str]) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(str(node.value))]
    except ValueError as error:
        text = f"{show(node.value)}: {error}; write {{{{ and }}}} for braces"
        reading.wrong(node, key, text)
        return
    for name in names:
        if name is not None and name not in known:
            near = suggest(name, sorted(known))
            reading.wrong(node, key, f"{{{name}}} is no input{near}; {{{{ and }}}} are braces")
    text = str(node.value)
    if text.startswith(("./", "../")) and (meant := paths.beside(node)) is not None:
        told = f"{show(text)} is beside the recipe, and the program starts in {{out}}; "
        reading.wrong(node, key, f"{told}write {meant}, or {{out}}/… for what it makes itself")
