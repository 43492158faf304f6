"""A config of TRL on the command line → a recipe of the one stage that it describes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from launcher.recipe import overrides as on_top
from launcher.recipe.document import Node, parse
from launcher.recipe.methods import METHODS
from launcher.recipe.problems import Place, Problem, RecipeErrors, show
from launcher.recipe.references import OWN_MODEL
from launcher.recipe.schema import RECIPE, STAGE
from launcher.recipe.train_from import KEY
from launcher.recipe.trl_yaml.flat import built
from launcher.recipe.types import SCHEMA_VERSION


def of_config(source: str, method: str, accelerate: str | None, overrides: Sequence[str]) -> Node:
    """The document of a recipe with one stage, called as its method.

    Its overrides are of three kinds: `stages.…` and other keys of a recipe, keys of the stage
    (`train.beta=0.1`, `data.path=…`), and keys of the config itself (`learning_rate=1e-6`).
    Raises RecipeErrors.
    """
    here = Place(source if source.isprintable() else show(source), 0, 0, Path.cwd())
    like = Node(None, here, here)
    ours, theirs = [], []
    problems: list[Problem] = []
    for override in overrides:
        first = re.split(r"[.=]", override, maxsplit=1)[0]
        if first == OWN_MODEL:
            role = METHODS[method].main_role
            ours.append(f"stages.{method}.{role}{override.removeprefix(OWN_MODEL)}")
        elif first in STAGE["properties"]:
            ours.append(f"stages.{method}.{override}")
        elif first in RECIPE["properties"]:
            ours.append(override)
        else:
            try:
                theirs.append(_key(override))
            except RecipeErrors as errors:
                problems += errors.problems
    if problems:
        raise RecipeErrors(problems)
    files = [source] if accelerate is None else [source, accelerate]
    stage = {"method": method, KEY: [*files, *theirs]}
    recipe = {"launcher": SCHEMA_VERSION, "name": name_of(source), "stages": {method: stage}}
    return on_top.apply(built(recipe, like), ours)


def name_of(source: str) -> str:
    """A run's name from that of a config's file."""
    stem = Path(source).name
    stem = stem[: -len(Path(source).suffix)] if Path(source).suffix else stem
    words = re.findall(r"[A-Za-z0-9][A-Za-z0-9_-]*", stem)
    return ".".join(words)[:64].rstrip(".") or "config"


def _key(override: str) -> Node:
    """`learning_rate=1e-6` as a config of one key."""
    place = Place(f"argument {show(override)}", 0, 0, Path.cwd())
    key, equals, text = override.partition("=")
    if not equals or not key.isidentifier():
        problem = "an override is KEY=VALUE, as learning_rate=1e-6 or stages.dpo.train.beta=0.1"
        raise RecipeErrors([Problem(place, "", problem)])
    value = text.encode("utf-8", "surrogateescape")
    empty = Node(None, place, place)
    node = parse(value, place.file, place.folder, argument=True) if text.strip() else empty
    return built({key: node}, node)
