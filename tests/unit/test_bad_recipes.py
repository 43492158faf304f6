"""Every recipe in `tests/bad_recipes/` is refused in the words beside it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from launcher.cli.prepare import prepare
from launcher.errors import LauncherError
from launcher.recipe.load import load_recipe
from launcher.recipe.problems import RecipeErrors, has_secret

FOLDER = Path(__file__).resolve().parent.parent / "bad_recipes"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_a_bad_recipe_is_refused_with_place_key_and_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(RecipeErrors) as refusal:
        load_recipe(f"{name}.yaml")
    said = str(refusal.value).replace(str(FOLDER), "HERE") + "\n"
    assert said == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert refusal.value.exit_code == 2


def test_every_expected_text_has_its_recipe() -> None:
    texts = {path.stem for path in FOLDER.glob("*.txt")}
    assert texts == {path.stem for path in FOLDER.glob("*.yaml")}


def refusal(source: str) -> str:
    with pytest.raises(RecipeErrors) as errors:
        load_recipe(source)
    return str(errors.value)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text("# " + "x" * 2**21)
    assert "larger than 1048576 bytes" in refusal(str(path))


def test_a_folder_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(str(tmp_path))
    assert "does not exist" in refusal(str(tmp_path / "no.yaml"))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is not a regular file" in refusal(str(tmp_path / "pipe.yaml"))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("launcher: 1\n")
    path.chmod(0)
    if os.geteuid() != 0:  # root reads everything
        assert "cannot be read" in refusal(str(path))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)


@pytest.mark.parametrize(
    "source", ["", "../../etc/passwd", "a\0b", "x" * 300 + ".yaml", "x" * 5000]
)
def test_a_name_that_no_recipe_can_have_is_refused(source: str) -> None:
    assert "\n" not in refusal(source)


def test_an_unknown_built_in_name_brings_the_nearest() -> None:
    assert "did you mean 'ppo_7b'?" in refusal("ppo_7")


def test_a_word_that_ends_like_the_start_of_a_token_is_none() -> None:
    assert not has_secret("the-disk-is-full-at-a-save-and-nobody-sees-it")
    assert has_secret("key=sk-" + "a1" * 12)


def test_a_token_is_never_repeated(tmp_path: Path) -> None:
    token = "hf_" + "a1B2" * 8
    path = tmp_path / "r.yaml"
    path.write_text(f"launcher: {token}\nname: {token}/x\nseed: {token}\nstages: {token}\n")
    assert token not in refusal(str(path))
    path.write_text(f"launcher: 1\nname: {token}/x\nseed: {token}\nstages: {token}\n{token}: 1\n")
    assert token not in refusal(str(path))


PLANNED = FOLDER / "planned"


@pytest.mark.parametrize("name", sorted(path.stem for path in PLANNED.glob("*.yaml")))
def test_a_bad_recipe_that_only_a_plan_can_tell_is_refused_with_place_key_and_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(PLANNED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LauncherError) as refusal:
        prepare(f"{name}.yaml", (), str(PLANNED / "on" / "lab.yaml"), tmp_path / "runs")
    hint = f"\n{refusal.value.hint}" if refusal.value.hint else ""
    said = f"{refusal.value.message}{hint}\n".replace(str(PLANNED), "HERE")
    expected = PLANNED / f"{name}.txt"
    assert said == expected.read_text(encoding="utf-8")
    assert re.match(rf"{name}\.yaml:\d+:\d+ [a-z]", said)
    assert refusal.value.exit_code == (3 if name == "nothing_fits" else 2)
    assert list(tmp_path.iterdir()) == []
