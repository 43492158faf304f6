"""Reward functions that open-r1 names by one word, as functions of the library or of TRL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TAGS = r"\A<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>(?=\n|\Z)"
_CODE = r"\A<think>\n.*?\n</think>\n<answer>\n.*?```%s.*?```.*?\n</answer>(?=\n|\Z)"
_LATEX = {"column": "solution", "correct": "latex", "unit": "characters"}


@dataclass(frozen=True)
class Same:
    """A function that does the same."""

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that are always so."""
    keys: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """Key of the config → the option that it is, and open-r1's default."""


SAME: Mapping[str, Same] = {
    "accuracy": Same("accuracy_reward"),
    "format": Same("regex_format", {"pattern": _TAGS, "whole": False}),
    "tag_count": Same("tag_count"),
    "reasoning_steps": Same("reasoning_steps"),
    "cosine": Same(
        "cosine_length",
        _LATEX,
        {
            "cosine_max_len": ("max", 1000),
            "cosine_min_value_wrong": ("wrong_short", 0.0),
            "cosine_max_value_wrong": ("wrong_long", -0.5),
            "cosine_min_value_correct": ("right_long", 0.5),
            "cosine_max_value_correct": ("right_short", 1.0),
        },
    ),
    "length": Same("brevity", _LATEX),
    "repetition_penalty": Same(
        "repetition",
        {"ignore_case": True},
        {"repetition_n_grams": ("ngram", 3), "repetition_max_penalty": ("most", -1.0)},
    ),
    "soft_overlong_punishment": Same(
        "get_soft_overlong_punishment",
        {},
        {
            "max_completion_len": ("max_completion_len", 16384),
            "soft_punish_cache": ("soft_punish_cache", 4096),
        },
    ),
    "code_format": Same("regex_format", {"whole": False}, {"code_language": ("pattern", "python")}),
    # With these figures TRL's own script names it.
    "get_soft_overlong_punishment": Same(
        "get_soft_overlong_punishment", {"max_completion_len": 1280, "soft_punish_cache": 256}
    ),
}

SANDBOXED = ("code", "binary_code", "ioi_code", "cf_code")
"""Functions that run what the model writes, on a server of their own."""

OPTIONS = (
    *(key for same in SAME.values() for key in same.keys),
    "code_eval_test_batch_size", "code_eval_scoring_mode", "parallel_code_exec_per_proc",
    "e2b_router_url", "morph_router_url", "code_provider", "ioi_provider",
)  # fmt: skip
"""Keys of open-r1's configs that are options of its functions."""


def option(key: str, value: Any) -> Any:
    """The value of a config's `key` as the option of the function that does the same."""
    if key == "code_language":
        return _CODE % value
    if key == "repetition_max_penalty" and isinstance(value, (int, float)):
        return abs(value)
    return value
