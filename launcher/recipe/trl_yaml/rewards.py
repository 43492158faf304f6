"""`reward_funcs` of TRL's and open-r1's GRPO scripts → the stage's `rewards`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.problems import show, suggest
from launcher.recipe.rewards import LIBRARY
from launcher.recipe.trl_yaml.flat import Flat
from launcher.recipe.values import NAME

_THINK = r"\A<think>(?!.*<think>).*?</think>"
_TAGS = r"\A<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>(?=\n|\Z)"

SAME: Mapping[str, Mapping[str, Any]] = {
    name: {"function": "regex_format", "options": {"pattern": pattern, "whole": False}}
    for name, pattern in (("think_format_reward", _THINK), ("format", _TAGS))
}
"""Functions that the library has, with the options that make them the same."""

OTHERS: Mapping[str, str] = {
    "accuracy": "it holds LaTeX against `solution` with math-verify",
    "accuracy_reward": "it holds LaTeX against `solution` with math-verify",
    "reasoning_accuracy_reward": "it holds LaTeX after the reasoning against `solution`",
    "get_soft_overlong_punishment": "it takes off for length near the limit",
    "soft_overlong_punishment": "it takes off for length near the limit",
    "tag_count": "it counts the tags one by one",
    "reasoning_steps": "it counts steps such as `First,` and `1.`",
    "cosine": "it scales correctness by length",
    "repetition_penalty": "it takes off for repeated n-grams",
    "length": "it scales correctness by the length beside the others'",
    "code": "it runs code in a sandbox",
    "binary_code": "it runs code in a sandbox",
    "ioi_code": "it runs code in a sandbox",
    "cf_code": "it runs code in a sandbox",
    "code_format": "it looks for a block of code of a language",
}
"""Functions that only their own scripts have: what they do."""

_OPTIONS = (
    "cosine_min_value_wrong", "cosine_max_value_wrong", "cosine_min_value_correct",
    "cosine_max_value_correct", "cosine_max_len", "repetition_n_grams", "repetition_max_penalty",
    "code_language", "code_eval_test_batch_size", "code_eval_scoring_mode",
    "parallel_code_exec_per_proc", "e2b_router_url", "morph_router_url", "code_provider",
    "ioi_provider", "max_completion_len", "soft_punish_cache",
)  # fmt: skip
_FILE = "rewards.py"


def take(flat: Flat) -> None:
    """The stage's `rewards`, each under its name, with its weight."""
    for key in _OPTIONS:
        flat.leave_out(key, "it is of open-r1's own reward functions; write it into yours")
    functions = flat.left.get("reward_funcs")
    if functions is None or not flat.method.judged:
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
        _one(flat, node, share, found)
    if found:
        flat.stage["rewards"] = found


def _one(flat: Flat, node: Node, share: Node | None, found: dict[str, Any]) -> None:
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
    here = _beside(node, label)
    if here is not None:
        found[label] = {"function": _at(node, here), **weight}
        flat.note(node, key, f"taken from {_FILE} beside the config")
    elif text in SAME:
        found[label] = {**SAME[text], **weight}
        flat.note(node, key, f"taken as `{SAME[text]['function']}` of the library")
    elif text in LIBRARY and text not in OTHERS:
        found[label] = {"function": node, **weight}
    elif "/" in text:
        found[label] = {"model": flat.local(node), **weight}
    else:
        does = OTHERS.get(text)
        said = f"{does}, which the library has not" if does else "not in the library"
        near = "" if does else suggest(text, (*LIBRARY, *SAME))
        way = f"write `def {label}(…)` into a {_FILE} beside the config, or name a file.py:function"
        way += f" or one of the library ({', '.join(LIBRARY)}) as `rewards.{label}.function`"
        flat.wrong(node, key, f"{said}{near}; {way}")


def _at(node: Node, function: str) -> Node:
    return Node(str(node.place.folder / _FILE) + f":{function}", node.place, node.key_place)


def _beside(node: Node, label: str) -> str | None:
    """The function called `label` (or with `_reward`) in a rewards.py beside the config."""
    path = Path(node.place.folder) / _FILE
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return None
    for name in (label, f"{label}_reward"):
        if re.search(rf"(?m)^def {re.escape(name)}\(", text):
            return name
    return None
