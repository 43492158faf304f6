"""The catalogue of what ships."""

from __future__ import annotations

from pathlib import Path

from launcher.recipe.shelf import catalogue
from launcher.recipe.sources import built_in_names, part_names
from tests.unit.command import launcher


def test_every_recipe_stands_on_one_shelf_with_a_sentence() -> None:
    found = catalogue()
    stood = [name for shelf in found.shelves for name in shelf.recipes]
    assert sorted(stood) == built_in_names()
    assert all(shelf.about.endswith((".", ":")) for shelf in found.shelves)
    parts = [f"{folder}/{name}" for folder, names in found.parts.items() for name in names]
    assert sorted(parts) == part_names()


def test_a_methods_recipes_are_one_shelf_from_the_smallest_model_on() -> None:
    (shelf,) = (each for each in catalogue().shelves if each.name.startswith("sft_SIZE"))
    assert shelf.name == "sft_SIZE[_lora|_qlora]"
    assert shelf.recipes[:7] == tuple(f"sft_{size}" for size in catalogue().sizes[""])
    assert shelf.recipes[-1] == "sft_72b_qlora"
    assert catalogue().parts["size"][-3:] == ("smollm2-135m", "smollm2-360m", "smollm2-1.7b")


def test_the_command_prints_it_for_people_and_for_programs(tmp_path: Path) -> None:
    told = launcher("recipes", folder=tmp_path).out
    assert "grpo_SIZE[_lora]" in told and "guide/rlhf" in told and "llama3-8b" in told
    shelves = launcher("recipes", "--json", folder=tmp_path).data("recipes")["shelves"]
    assert "ppo_7b_lora" in [name for shelf in shelves for name in shelf["recipes"]]
