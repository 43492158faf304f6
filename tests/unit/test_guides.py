"""The guides' recipes load, and what they say of the tiny model is short enough to be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.recipe.load import load_recipe
from tests.unit.command import ROOT

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
ROWS = {
    "conversations.jsonl": '{"messages": []}\n',
    "preferences.jsonl": '{"chosen": [], "rejected": []}\n',
    "prompts.jsonl": '{"prompt": []}\n',
    "rewards.py": "def words(completions, **columns):\n    return [0.0 for _ in completions]\n",
}


def blocks(guide: Path, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    return [str(block) for block in found]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_recipes_of_a_guide_load(guide: Path, tmp_path: Path) -> None:
    for name, text in ROWS.items():
        (tmp_path / name).write_text(text)
    found = blocks(guide, "yaml")
    assert found
    for text in found:
        (tmp_path / "recipe.yaml").write_text(text)
        assert load_recipe(str(tmp_path / "recipe.yaml")).stages


def test_the_guides_reward_is_a_function_that_gives_a_number_an_answer() -> None:
    (text,) = blocks(ROOT / "docs" / "guides" / "grpo.md", "python")
    names: dict[str, object] = {}
    exec(text, names)
    words = names["words"]
    assert callable(words)
    said = [[{"role": "assistant", "content": text}] for text in ("one two", "one one", "")]
    assert words(completions=said, prompts=[]) == [4.0, 3.0, 0.0]
