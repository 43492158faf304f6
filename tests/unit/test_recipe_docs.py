"""What `docs/recipes.md` says of recipes holds."""

from __future__ import annotations

import re
from pathlib import Path

from launcher.recipe.load import load_recipe
from launcher.recipe.methods import METHODS
from launcher.recipe.owned import OWNED

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_its_recipes_load(tmp_path: Path) -> None:
    (tmp_path / "conversations.jsonl").write_text('{"messages": []}\n')
    names = []
    for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL):
        (tmp_path / "r.yaml").write_text(block)
        names.append([stage.name for stage in load_recipe(str(tmp_path / "r.yaml")).stages])
    assert names == [["sft", "rm", "ppo", "eval"], ["sft", "rm", "ppo"]]


def test_it_lists_every_method_and_every_key_of_the_launchers() -> None:
    missing = [key for key in (*METHODS, *OWNED) if f"`{key}`" not in TEXT]
    assert not missing
