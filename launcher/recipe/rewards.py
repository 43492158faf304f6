"""What judges completions: `rewards:` of a stage, each a function or a reward model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.recipe import paths
from launcher.recipe.check import check
from launcher.recipe.document import Node, plain
from launcher.recipe.library import LIBRARY, compared, is_dotted, named, options_of, required
from launcher.recipe.methods import Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.references import reference
from launcher.recipe.types import Reward, Score, Stage

REWARD_MODEL = "reward_model"
"""The role that judges alone, or beside `rewards` with weight 1."""


def rewards_of(stage: Stage) -> tuple[Reward, ...]:
    """All that judges the stage's completions: its rewards, then its `reward_model` role."""
    role = stage.models.get(REWARD_MODEL)
    return (*stage.rewards, *([Reward(REWARD_MODEL, model=role)] if role is not None else []))


def rewards(
    reading: Reading, node: Node, at: str, method: Method, columns: Sequence[str] | None
) -> tuple[Reward, ...]:
    """The judges that the stage names, in the recipe's order. `columns` are those of the data
    beside the prompt, where they are known."""
    given = node.get("rewards")
    if not method.judged:
        if given is not None:
            text = f"{method.name} takes no rewards; grpo, rloo and online_dpo do"
            reading.wrong_key(given, f"{at}.rewards", text)
        return ()
    entries = given.items if given else {}
    stated = {label: entry for label, entry in entries.items() if entry.value is not None}
    found = [
        reward
        for label, entry in stated.items()
        if (reward := _reward(reading, at, f"{at}.rewards.{label}", label, entry)) is not None
    ]
    for reward in found:
        if reward.function is not None:
            key, entry = f"{at}.rewards.{reward.label}", stated[reward.label]
            _compare(reading, key, entry, reward.function, reward.options, columns)
    if REWARD_MODEL in stated and node.get(REWARD_MODEL) is not None:
        text = f"the stage's `{REWARD_MODEL}` bears this name; take another, or leave that out"
        reading.wrong_key(stated[REWARD_MODEL], f"{at}.rewards.{REWARD_MODEL}", text)
    if not stated and node.get(REWARD_MODEL) is None and node.get("use") is None:
        text = f"{method.name} needs `rewards` (functions or models) or a `reward_model`"
        reading.missing(node, f"{at}.rewards", text)
    return tuple(found)


def scores(
    reading: Reading, node: Node, at: str, columns: Sequence[str] | None
) -> dict[str, Score]:
    """`scores:` of an evaluation, label → score: functions alone, with no weight. `columns` as of
    `rewards`."""
    given, found = node.get("scores"), {}
    for label, entry in given.items.items() if given else ():
        if entry.value is None:
            continue
        key = f"{at}.scores.{label}"
        stated = entry if isinstance(entry.value, str) else entry.get("function")
        if stated is None:
            continue  # which the schema has said
        path = key if stated is entry else f"{key}.function"
        name = _function(reading, path, stated)
        if name is not None:
            found[label] = Score(name, _options_of(reading, key, name, entry))
            _compare(reading, key, entry, name, found[label].options, columns)
    return found


def _compare(
    reading: Reading,
    key: str,
    node: Node,
    function: str,
    options: Mapping[str, Any],
    columns: Sequence[str] | None,
) -> None:
    """Note that the data has not the column which `function` compares completions with."""
    wanted = compared(function, options)
    if wanted is None or columns is None or wanted in columns:
        return
    given = node.get("options")
    stated = given.get("column") if given is not None else None
    way = "map it with `data.columns`"
    if function in LIBRARY:
        way = f"set its option `column`, or {way}"
    text = f"{function} compares with the column {show(wanted)}, which the data has not: {way}"
    text += suggest(wanted, columns)
    reading.wrong(stated or node, f"{key}.options.column" if stated else key, text)


def _reward(reading: Reading, at: str, key: str, label: str, node: Node) -> Reward | None:
    if isinstance(node.value, str):
        return _of_text(reading, at, key, label, node)
    function, model = node.get("function"), node.get("model")
    if (function is None) == (model is None):
        text = "a reward is either a `function` or a `model`"
        reading.wrong_key(node, key, text)
        return None
    weight, options = node.get("weight"), node.get("options")
    share = float(str(weight.value)) if weight is not None else 1.0
    if model is not None:
        found = reference(reading, model, at, f"{key}.model", ("reward_model",))
        if options is not None:
            reading.wrong_key(options, f"{key}.options", "a reward model takes none")
        return None if found is None else Reward(label, model=found, weight=share)
    assert function is not None
    name = _function(reading, f"{key}.function", function)
    if name is None:
        return None
    return Reward(label, name, weight=share, options=_options_of(reading, key, name, node))


def _of_text(reading: Reading, at: str, key: str, label: str, node: Node) -> Reward | None:
    """A judge that is one word: what it looks like says what it is."""
    text = str(node.value)
    if text in named() or ".py" in text or not ("/" in text or ":" in text):
        name = _function(reading, key, node)
        if name is None:
            return None
        return Reward(label, name, options=_options_of(reading, key, name, node))
    model = reference(reading, node, at, key, ("reward_model",))
    return None if model is None else Reward(label, model=model)


def _function(reading: Reading, key: str, node: Node) -> str | None:
    text = str(node.value)
    if text in named() or is_dotted(text):
        return text
    if ".py" not in text:
        near = suggest(text, tuple(named()))
        said = "neither file.py:function nor package.module.function, nor in the library"
        reading.wrong(node, key, f"{show(text)} is {said}{near}")
        return None
    return reading.path(node, key, paths.score)


def _options_of(reading: Reading, key: str, name: str, node: Node) -> dict[str, Any]:
    """The options stated at `node` for the function `name`, which only the library's take."""
    if name in named():
        return _options(reading, key, name, node)
    options = node.get("options")
    if options is not None:
        text = "only functions of the library take options; write them into the function"
        reading.wrong_key(options, f"{key}.options", text)
    return {}


def _options(reading: Reading, key: str, name: str, node: Node) -> dict[str, Any]:
    """The options that the reward at `node` states, each checked."""
    given, at = node.get("options"), f"{key}.options"
    schema = {
        "type": "object",
        "properties": {option: each.schema for option, each in named()[name].items()},
        "additionalProperties": False,
    }
    before = len(reading.problems)
    checked = check(given, schema, at, reading.problems) if given is not None else None
    stated = {k: v for k, v in plain(checked).items() if v is not None} if checked else {}
    if len(reading.problems) == before:
        wrong = _contradiction(name, options_of(name, stated))
        if wrong is not None:
            reading.wrong_key(given or node, at if given else key, wrong)
    return stated


def _contradiction(name: str, options: Mapping[str, Any]) -> str | None:
    """What no option says alone, in words; None where all is well."""
    missing = [key for key in required(name) if options[key] is None]
    if missing:
        return f"{name} needs the option `{missing[0]}`"
    if name == "cosine_length" and options["max"] is None:
        return "cosine_length needs the option `max`, the length from which nothing changes"
    if name == "length":
        least, most = options["min"], options["max"]
        if least is None and most is None:
            return "length needs the option `min`, `max`, or both"
        if least is not None and most is not None and least > most:
            return f"`min` {least} is above `max` {most}"
    if name == "regex_format":
        if options["pattern"] is None:
            return "regex_format needs the option `pattern`, a regular expression"
        try:
            re.compile(options["pattern"], re.DOTALL)
        except re.error as error:
            return f"`pattern` is no regular expression: {error}"
    return None
