"""A folder of configs and recipes: what each is, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from launcher.recipe.document import Node
from launcher.recipe.load import load_recipe
from launcher.recipe.methods import ELSEWHERE, METHODS
from launcher.recipe.problems import Place, RecipeErrors
from launcher.recipe.sources import read_config
from launcher.recipe.train_from import is_config
from launcher.recipe.trl_yaml import accelerate

_ALIASES = {"ppov2": "ppo", "rm": "reward", "reward_modeling": "reward", "onlinedpo": "online_dpo"}
_ELSEWHERE = (
    "orpo", "cpo", "simpo", "bco", "gkd", "gold", "xpo", "nash_md", "prm", "distillation", "ddpo",
    "gmpo", "alignprop",
)  # fmt: skip
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # The old RLOO had PPO's keys too.
    ("rloo", ("rloo_k", "normalize_advantages")),
    ("ppo", ("num_ppo_epochs", "ppo_epochs", "kl_coef", "cliprange", "total_episodes")),
    ("grpo", ("reward_funcs", "num_generations", "epsilon", "scale_rewards")),
    ("kto", ("desirable_weight", "undesirable_weight")),
    ("reward", ("center_rewards_coefficient",)),
    ("dpo", ("loss_type", "rpo_alpha", "precompute_ref_log_probs", "label_smoothing", "beta")),
    ("sft", ("packing", "max_seq_length", "dataset_text_field", "assistant_only_loss",
             "completion_only_loss")),
)  # fmt: skip
"""Method → keys that only its configs have, the more telling first."""
_FILTER = ("pass_rate_min", "pass_rate_max", "output_dataset_name")


@dataclass(frozen=True)
class Report:
    """What became of one file."""

    file: str
    """Relative to the folder."""
    kind: Literal["config", "recipe", "part", "accelerate", "other"]
    method: str | None = None
    """Of a config: as stated, or guessed from the file's path, or its keys."""
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def result(self) -> Literal["ok", "warnings", "refused"]:
        if self.errors:
            return "refused"
        return "warnings" if self.warnings else "ok"


def survey(folder: Path, method: str | None = None, launch: str | None = None) -> Iterator[Report]:
    """Every .yaml and .yml file below `folder` but in hidden folders, in the order of their paths.

    Every config of TRL is read as of `method`, or else of the method that its path or keys tell,
    with the accelerate config `launch` beside it.
    """
    found = [path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml")]
    for path in sorted(found):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield replace(_one(path, relative, method, launch), file=str(relative))


def _one(path: Path, relative: Path, method: str | None, launch: str | None) -> Report:
    place = Place(str(path), 0, 0, Path.cwd())
    try:
        document = read_config(Node(str(path), place, place))
    except RecipeErrors as errors:
        return Report("", "other", errors=_lines(errors))
    if accelerate.is_accelerate(document):
        return Report("", "accelerate", warnings=(accelerate.note(document),))
    if not is_config(document):
        if "stages" not in document.items and "extends" not in document.items:
            known = "launcher" in document.items or "methods" in document.items
            text = "neither a recipe nor a config of TRL or accelerate"
            return Report("", "part") if known else Report("", "other", errors=(text,))
        return _loaded(path, None, None)
    if method is None and any(key in document.items for key in _FILTER):
        text = "a config of open-r1's data filter: it trains nothing"
        return Report("", "other", errors=(text,))
    named = method or guess(relative, document)
    if named is None:
        return Report("", "config", errors=("its method cannot be told; say `--method`",))
    if named not in METHODS:
        text = f"`{named}` is no method here; there are {', '.join(METHODS)}"
        text += f"; {ELSEWHERE[named]}" if named in ELSEWHERE else ""
        return Report("", "config", named, errors=(text,))
    return _loaded(path, named, launch)


def _loaded(path: Path, method: str | None, launch: str | None) -> Report:
    kind: Literal["config", "recipe"] = "recipe" if method is None else "config"
    try:
        recipe = load_recipe(str(path), method=method, accelerate=launch)
    except RecipeErrors as errors:
        return Report("", kind, method, errors=_lines(errors))
    return Report("", kind, method, warnings=recipe.warnings)


def _lines(errors: RecipeErrors) -> tuple[str, ...]:
    return tuple(str(problem) for problem in errors.problems)


def guess(path: Path, document: Node) -> str | None:
    """The method of a config: what its file's name says, or its folders', the nearest first, else
    its keys. It may be one that there is none of here. None: nothing tells."""
    for part in (path.stem, *(parent.name for parent in path.parents)):
        words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if word]
        # `online_dpo` is one name and two words.
        joined = ["_".join(pair) for pair in pairwise(words)]
        for word in (*joined, *words):
            name = _ALIASES.get(word, word)
            if (name in METHODS and METHODS[name].config is not None) or name in _ELSEWHERE:
                return name
    for name, keys in _SIGNS:
        if any(key in document.items for key in keys):
            return name
    return None
