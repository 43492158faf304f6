"""`stages.ppo.train.learning_rate=1e-6` on the command line → a document on top of the recipe's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.recipe.document import Node, merge, parse
from launcher.recipe.problems import Place, Problem, RecipeErrors, show, suggest


def apply(document: Node, overrides: Sequence[str]) -> Node:
    """`document` with each override merged on top. Relative paths are the current folder's.

    Raises RecipeErrors.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            document = merge(document, _one(document, override))
        except RecipeErrors as errors:
            problems += errors.problems
    if problems:
        raise RecipeErrors(problems)
    return document


def _one(document: Node, override: str) -> Node:
    label = f"argument {show(override)}"
    place = Place(label, 0, 0, Path.cwd())
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        problem = "an override is KEY.KEY=VALUE, as stages.sft.train.learning_rate=1e-5"
        raise RecipeErrors([Problem(place, "", problem)])
    if keys[0] == "extends":
        raise RecipeErrors([Problem(place, path, "cannot be overridden; write a small recipe")])
    stages = document.items.get("stages")
    if keys[0] == "stages" and len(keys) > 2 and stages is not None and keys[1] not in stages.items:
        near = suggest(keys[1], tuple(stages.items))
        raise RecipeErrors([Problem(place, f"stages.{keys[1]}", f"no such stage{near}")])
    value = text.encode("utf-8", "surrogateescape")
    node = parse(value, label, place.folder, argument=True) if text.strip() else None
    below = node or Node(None, place, place)
    for key in reversed(keys):
        below = Node({key: below}, place, place, below.size + 1)
    return below
