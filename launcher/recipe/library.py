"""Functions that judge completions and are there by name: a small library of the launcher's own,
and those of the installed TRL. What is said here is checked with the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from launcher.recipe.fields import trl_rewards

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


@dataclass(frozen=True)
class Option:
    """One option of a function of the library."""

    schema: Mapping[str, Any]
    """What it may be, as JSON Schema."""
    default: Any = None
    """None: not set."""


_COLUMN = Option({"type": "string", "minLength": 1, "maxLength": 256}, "answer")
_AFTER = Option({"type": "string", "minLength": 1, "maxLength": 256})
_BOUND = Option({"type": "integer", "minimum": 1})
_UNIT = Option({"enum": ["tokens", "words", "characters"]}, "tokens")
_NUMBER = {"type": "number"}
_RIGHT = {
    "column": _COLUMN,
    "after": _AFTER,
    "correct": Option({"enum": ["numeric", "exact", "latex"]}, "numeric"),
}
_TAGS = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 256},
    "minItems": 1,
    "maxItems": 64,
}

LIBRARY: Mapping[str, Mapping[str, Option]] = {
    "exact_match": {
        "column": _COLUMN,
        "after": _AFTER,
        "ignore_case": Option({"type": "boolean"}, False),
    },
    "numeric_answer": {
        "column": _COLUMN,
        "after": _AFTER,
        "tolerance": Option({"type": "number", "minimum": 0}, 1e-6),
    },
    "regex_format": {
        "pattern": Option({"type": "string", "minLength": 1, "maxLength": 4096}),
        "whole": Option({"type": "boolean"}, True),
    },
    "tag_count": {"tags": Option(_TAGS)},
    "reasoning_steps": {"steps": Option({"type": "integer", "minimum": 1, "maximum": 1024}, 3)},
    "length": {"min": _BOUND, "max": _BOUND, "unit": _UNIT},
    "cosine_length": {
        **_RIGHT,
        "max": _BOUND,
        "unit": _UNIT,
        "right_short": Option(_NUMBER, 1.0),
        "right_long": Option(_NUMBER, 0.5),
        "wrong_short": Option(_NUMBER, -1.0),
        "wrong_long": Option(_NUMBER, -0.5),
    },
    "brevity": {**_RIGHT, "unit": _UNIT},
    "repetition": {
        "ngram": Option({"type": "integer", "minimum": 1, "maximum": 64}, 3),
        "ignore_case": Option({"type": "boolean"}, False),
        "most": Option({"type": "number", "minimum": 0}, 1.0),
    },
}
"""Function of `launcher/worker/rewards/library.py` → its options."""

MATH = "math_verify"
"""The package (math-verify) that reads answers in LaTeX."""


@lru_cache
def of_trl() -> Mapping[str, Mapping[str, Option]]:
    """Function of the installed TRL's `trl.rewards` → its options."""
    return {
        name: {
            key: Option({k: v for k, v in schema.items() if k != "default"}, schema.get("default"))
            for key, schema in each["options"].items()
        }
        for name, each in trl_rewards().items()
    }


def named() -> Mapping[str, Mapping[str, Option]]:
    """Every function that a recipe may name by one word → its options."""
    return {**of_trl(), **LIBRARY}


def is_dotted(function: str) -> bool:
    """Whether `function` is a path of import, `package.module.function`."""
    return _DOTTED.fullmatch(function) is not None and not function.endswith(".py")


def is_file(function: str) -> bool:
    """Whether `function` is one of the user's, `/abs/file.py:function`."""
    return function not in named() and not is_dotted(function)


def package_of(function: str, options: Mapping[str, Any]) -> str | None:
    """The package beside the training stack that a function needs on the node; None: none."""
    if function in LIBRARY:
        return MATH if options.get("correct") == "latex" else None
    if function in of_trl():
        return MATH if trl_rewards()[function]["math"] else None
    return function.partition(".")[0] if is_dotted(function) else None


def compared(function: str, options: Mapping[str, Any]) -> str | None:
    """The data's column of right answers that a function goes by; None: none, or not known."""
    if function in of_trl():
        return "solution" if trl_rewards()[function]["math"] else None
    takes = "column" in LIBRARY.get(function, {})
    return str(options_of(function, options)["column"]) if takes else None


def required(name: str) -> tuple[str, ...]:
    """The options that a function of TRL's has no default for."""
    stated = trl_rewards().get(name, {"options": {}})["options"]
    return tuple(key for key, schema in stated.items() if "default" not in schema)


def options_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the function `name`: as given, else its default."""
    defaults = {key: option.default for key, option in named()[name].items()}
    return {**defaults, **given}
