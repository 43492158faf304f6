"""What is made of configs that were written for TRL's own scripts: the stage and every warning, or
every error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.recipe.document import dump
from launcher.recipe.load import load_recipe, recipe_of
from launcher.recipe.methods import METHODS
from launcher.recipe.problems import RecipeErrors

FOLDER = Path(__file__).resolve().parent.parent / "trl_configs"
FILES = [
    path.relative_to(FOLDER).as_posix()
    for path in sorted(FOLDER.glob("*/*.yaml"))
    if path.parent.name != "accelerate"
]


@pytest.mark.parametrize("name", FILES)
def test_a_config_becomes_the_same_stage_with_the_same_words_as_before(
    name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    folder, _, stem = name.removesuffix(".yaml").partition("/")
    # The name of one that is refused begins with its method's, of which one may begin another.
    begun = [each for each in METHODS if stem.startswith(each)]
    method = max(begun, key=len) if folder == "refused" else folder
    golden(f"trl_configs/{folder}/{stem}.txt", made(name, method).replace(str(FOLDER), "HERE"))


def made(name: str, method: str) -> str:
    try:
        recipe = load_recipe(name, method=method)
    except RecipeErrors as errors:
        assert name.startswith("refused/")
        return f"{errors}\n"
    text = dump(recipe.resolved)
    again = recipe_of(text, "resolved")
    assert again.stages == recipe.stages and again.resolved == recipe.resolved
    return "\n".join((*recipe.warnings, "", text))
