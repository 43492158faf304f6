"""Whether what a recipe's functions need is installed, where that can be known before queueing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from launcher.cli import output
from launcher.errors import UsageError

if TYPE_CHECKING:
    from launcher.recipe.types import Recipe


def check(recipe: Recipe, python: str | None, *, sure: bool = True) -> None:
    """Raises UsageError for a package that is missing, where `python`, the interpreter of the nodes
    (None: this one), is this one and the training stack is installed beside it. Elsewhere nothing
    is said. With `sure` false the nodes' interpreter is not known, and it is a warning."""
    from launcher.plan.packages import needed

    if python not in (None, sys.executable) or find_spec("trl") is None:
        return
    missing = [str(finding) for package, finding in needed(recipe) if find_spec(package) is None]
    if missing and sure:
        raise UsageError("\n".join(missing))
    for text in missing:
        output.note(f"warning: {text}")
