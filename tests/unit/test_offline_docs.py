"""The recipes in `docs/dpo.md` and `docs/peft.md` load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launcher.recipe.load import load_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(("page", "name"), [("dpo.md", "my-dpo"), ("peft.md", "my-qlora")])
def test_the_recipe_of_a_page_loads(page: str, name: str, tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    text = (DOCS / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "r.yaml").write_text(block)
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe.name == name and not recipe.warnings
