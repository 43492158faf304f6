"""The options that take a config written for TRL's own scripts in a recipe's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.cli import output
from launcher.errors import UsageError
from launcher.recipe.methods import METHODS

if TYPE_CHECKING:
    from launcher.recipe.types import Recipe

F = TypeVar("F", bound=Callable[..., Any])

TAKING = [m.name for m in METHODS.values() if m.config is not None and m.result != "report"]
"""The methods that a config of TRL can be of."""


def method_option(function: F) -> F:
    option = click.option(
        "--method",
        type=click.Choice(TAKING),
        help="RECIPE is a config written for `trl METHOD --config`.",
    )
    return option(function)


def accelerate_option(function: F) -> F:
    option = click.option(
        "--accelerate",
        metavar="FILE",
        help="With --method: the config of `accelerate launch`; its processes count for the batch.",
    )
    return option(function)


def load(
    source: str, overrides: Sequence[str], method: str | None, accelerate: str | None
) -> Recipe:
    """The recipe at `source`, or the one that a config of TRL makes; its warnings go to stderr.

    Raises UsageError.
    """
    from launcher.recipe.load import load_recipe

    if accelerate is not None and method is None:
        raise UsageError(
            "`--accelerate` goes with `--method`: a recipe says it by itself",
            hint="name it in the stage's `train_from`",
        )
    recipe = load_recipe(source, overrides, method=method, accelerate=accelerate)
    for warning in recipe.warnings:
        output.note(f"warning: {warning}")
    return recipe
