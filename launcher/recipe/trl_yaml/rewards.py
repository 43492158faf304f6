"""`reward_funcs` of TRL's and open-r1's GRPO scripts → the stage's `rewards`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.functions import BadSource, names
from launcher.recipe.library import LIBRARY, is_dotted, named, of_trl
from launcher.recipe.problems import show, suggest
from launcher.recipe.renames import REMOVED
from launcher.recipe.trl_yaml.flat import Flat, built
from launcher.recipe.trl_yaml.open_r1 import OPTIONS, SAME, SANDBOXED, option
from launcher.recipe.values import NAME

_FILE = "rewards.py"


def take(flat: Flat) -> None:
    """The stage's `rewards`, each under its name, with its weight."""
    options = {key: node for key in OPTIONS if (node := flat.left.pop(key, None)) is not None}
    _judge(flat)
    functions = flat.left.get("reward_funcs")
    if functions is None or not flat.method.judged:
        _idle(flat, options)
        return
    del flat.left["reward_funcs"]
    weights = flat.take("reward_weights")
    names = functions.value if isinstance(functions.value, list) else [functions]
    shares = weights.value if weights is not None and isinstance(weights.value, list) else []
    if weights is not None and len(shares) != len(names):
        text = f"{len(shares)} `reward_weights` for {len(names)} `reward_funcs`; give each one"
        flat.wrong(weights, f"{flat.at}.rewards", text)
        return
    found: dict[str, Any] = {}
    for index, node in enumerate(names):
        share = shares[index] if shares else None
        _one(flat, node, share, found, options)
    _idle(flat, options)
    if found:
        flat.stage["rewards"] = found


def _judge(flat: Flat) -> None:
    """Online DPO's judge of pairs, which the installed TRL has no more."""
    judge = flat.left.get("judge")
    if flat.method.name != "online_dpo" or judge is None or judge.value is None:
        return
    others = "reward_funcs" in flat.left or "reward_model" in flat.stage
    if others or flat.says("rewards") or flat.says("reward_model"):
        flat.leave_out("judge", REMOVED["judge"])
    else:
        del flat.left["judge"]
        text = f"{REMOVED['judge']}; name a `reward_model_path` or `reward_funcs`"
        flat.wrong(judge, "judge", text)


def _idle(flat: Flat, options: dict[str, Node]) -> None:
    """Say that what is left of the `options` of open-r1's functions is of none that judge here."""
    for key, node in options.items():
        flat.leave_out(key, "no function that judges here takes it", node)


def _one(
    flat: Flat, node: Node, share: Node | None, found: dict[str, Any], options: dict[str, Node]
) -> None:
    text = str(node.value)
    label = text.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
    weight = {} if share is None or share.value == 1 else {"weight": share}
    key = f"{flat.at}.rewards.{label}"
    if not re.fullmatch(NAME, label) or label in found:
        text = f"{show(text)} is no name of a function or reward model, or is there twice"
        flat.wrong(node, f"{flat.at}.rewards", text)
        return
    own = flat.stated.get("rewards")
    if own is not None and label in own.items:
        given = own.items[label]
        # The recipe's function goes first, and the config's weight stays where it says none.
        if weight and isinstance(given.value, dict):
            found[label] = weight
        elif weight and isinstance(given.value, str):
            text = "the recipe's own goes first; its weight is 1 unless it is said there"
            flat.note(node, key, text)
        return
    here = _beside(node, _FILE, label)
    if here is not None:
        found[label] = {"function": _at(node, here), **weight}
        flat.note(node, key, f"taken from {_FILE} beside the config")
    elif text in SAME:
        found[label] = {**_same(text, node, options), **weight}
        whose = "TRL" if SAME[text].function in of_trl() else "the library"
        flat.note(node, key, f"taken as `{SAME[text].function}` of {whose}")
    elif text in named():
        found[label] = {"function": node, **weight}
    elif "/" in text:
        found[label] = {"model": flat.local(node), **weight}
    elif is_dotted(text):
        found[label] = {"function": _imported(flat, node, key), **weight}
    else:
        said = "it runs what the model writes in a sandbox of its own, which is not offered here"
        near = "" if text in SANDBOXED else suggest(text, (*named(), *SAME))
        said = said if text in SANDBOXED else "not in the library"
        way = f"write `def {label}(…)` into a {_FILE} beside the config, or name a file.py:function"
        way += f" or one of the library ({', '.join(LIBRARY)}) as `rewards.{label}.function`"
        flat.wrong(node, key, f"{said}{near}; {way}")


def _same(text: str, node: Node, options: dict[str, Node]) -> dict[str, Any]:
    """The reward that does what open-r1's function `text` does, with the config's options of it."""
    same = SAME[text]
    given: dict[str, Any] = dict(same.options)
    for key, (name, default) in same.keys.items():
        stated = options.pop(key, None)
        value = default if stated is None or stated.value is None else stated.value
        given[name] = built(option(key, value), node if stated is None else stated)
    return {"function": same.function, **({"options": given} if given else {})}


def _imported(flat: Flat, node: Node, key: str) -> Node:
    """A path of import: of a module that lies in the current folder or beside the config, as TRL
    finds it, its file; else as it stands, for the nodes to import."""
    module, _, function = str(node.value).rpartition(".")
    if "." not in module:
        for folder in (Path.cwd(), Path(node.place.folder)):
            path = folder / f"{module}.py"
            if _defines(path, function):
                flat.note(node, key, f"taken from the file {path}")
                return replace(node, value=f"{path}:{function}")
    flat.note(
        node, key, f"{module} is imported where the training runs; it must be installed there"
    )
    return node


def _at(node: Node, function: str) -> Node:
    return Node(str(node.place.folder / _FILE) + f":{function}", node.place, node.key_place)


def _beside(node: Node, file: str, label: str) -> str | None:
    """The function called `label` (or with `_reward`) in a file beside the config."""
    path = Path(node.place.folder) / file
    for name in (label, f"{label}_reward"):
        if _defines(path, name):
            return name
    return None


def _defines(path: Path, function: str) -> bool:
    """Whether the file `path` is there and defines the function. One that is no Python is taken to:
    where the function is read, its mistake is told."""
    try:
        return path.is_file() and function in names(path)
    except BadSource:
        return True
