"""A run's folder is made once and whole, and found again."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import LauncherError, UsageError
from launcher.recipe.types import Score
from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import again, folder
from tests.unit.running import ON_SLURM

RECIPE = {"name": "chain"}
BASE = f"chain-{ON_SLURM.identity[:8]}"


def create(runs: Path, *, new: bool = False) -> tuple[str, bool]:
    run, made = folder.create(runs, ON_SLURM, RECIPE, new=new)
    return run.root.name, made


def test_a_run_holds_the_plan_the_recipe_and_the_code(tmp_path: Path) -> None:
    run, made = folder.create(tmp_path / "runs", ON_SLURM, RECIPE, new=False)
    assert made and run.root.name == BASE
    assert folder.load_plan(run) == ON_SLURM
    assert run.recipe.read_text() == "name: chain\n"
    assert (run.code / "launcher" / "scheduler" / "entry.py").is_file()
    assert not list(run.code.rglob("__pycache__"))
    assert [event.kind for event in journal.read(run.journal)] == ["created"]


def test_a_run_is_its_owners_alone_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run, _ = folder.create(tmp_path / "runs", ON_SLURM, RECIPE, new=False)
    finally:
        os.umask(before)
    paths = [tmp_path / "runs", run.root, *run.root.rglob("*")]
    assert {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_dir()} == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_file()} == {0o600}


def test_a_score_function_is_copied_with_its_bytes(tmp_path: Path) -> None:
    rule = tmp_path / "my rule.py"
    rule.write_text("def points(text): return 1.0\n")
    judge = ON_SLURM.stage("eval")
    scored = replace(judge, stage=replace(judge.stage, scores={"rule": Score(f"{rule}:points")}))
    plan = replace(ON_SLURM, stages=(*ON_SLURM.stages[:-1], scored))
    run, _ = folder.create(tmp_path / "runs", plan, RECIPE, new=False)
    rule.write_text("changed")
    assert run.user_file(str(rule)).read_text() == "def points(text): return 1.0\n"


def test_the_same_recipe_finds_its_run_and_new_makes_another(tmp_path: Path) -> None:
    assert create(tmp_path) == (BASE, True)
    assert create(tmp_path) == (BASE, False)
    assert create(tmp_path, new=True) == (f"{BASE}-2", True)
    assert create(tmp_path, new=True) == (f"{BASE}-3", True)
    assert create(tmp_path) == (f"{BASE}-3", False)
    for _ in range(7):
        create(tmp_path, new=True)
    assert create(tmp_path) == (f"{BASE}-10", False)


def test_another_recipe_is_another_run_though_its_name_begins_alike(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / f"{BASE}-notes").mkdir()
    longer = replace(ON_SLURM, name="chain", identity="f" * 64)
    run, made = folder.create(tmp_path, longer, RECIPE, new=False)
    assert made and run.root.name == "chain-ffffffff"
    assert create(tmp_path) == (BASE, False)


def test_an_identity_of_digits_alone_is_not_taken_for_an_ordinal(tmp_path: Path) -> None:
    plan = replace(ON_SLURM, identity="12345678" * 8)
    for name in ("chain-12345678", "chain-12345678-2"):
        run, made = folder.create(tmp_path, plan, RECIPE, new=True)
        assert made and run.root.name == name


@pytest.mark.parametrize("new", [False, True])
def test_several_launchers_at_once_make_one_run_or_one_each(new: bool, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(create, tmp_path, new=new) for _ in range(3)]
        found = sorted(job.result(timeout=60) for job in jobs)
    names = [BASE, f"{BASE}-2", f"{BASE}-3"] if new else [BASE]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert {name for name, _ in found} == set(names)
    assert sum(made for _, made in found) == len(names)


@pytest.mark.parametrize("name", ["a%b", "a\\b", "a:b", "a\nb", "a\x1b[31mb", "a\x7fb"])
def test_a_folder_that_jobs_cannot_work_in_is_refused_and_not_made(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="jobs cannot work below") as refused:
        create(tmp_path / name)
    assert refused.value.hint and "\x1b" not in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_spaces_quotes_and_dollars_is_fine(tmp_path: Path) -> None:
    assert create(tmp_path / """it's "my" $(folder) ü""") == (BASE, True)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OSError):
        create(tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "a file"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Runs alpha-aaaaaaaa, alpha-aaaaaaaa-2 and beta-bbbbbbbb, made in this order."""
    alpha = replace(ON_SLURM, name="alpha", identity="a" * 64)
    beta = replace(ON_SLURM, name="beta", identity="b" * 64)
    for age, plan in enumerate((alpha, alpha, beta)):
        run, _ = folder.create(tmp_path, plan, RECIPE, new=True)
        os.utime(run.plan, (1000 + age, 1000 + age))
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, "beta-bbbbbbbb"),
        ("b", "beta-bbbbbbbb"),
        ("alpha-aaaaaaaa", "alpha-aaaaaaaa"),
        ("alpha-aaaaaaaa-", "alpha-aaaaaaaa-2"),
    ],
)
def test_a_run_is_found_by_an_abbreviation(asked: str | None, found: str, three: Path) -> None:
    assert folder.find(three, asked).root.name == found


def test_an_abbreviation_of_two_runs_names_both(three: Path) -> None:
    with pytest.raises(UsageError, match="a is the beginning of 2 runs") as refused:
        folder.find(three, "a")
    assert refused.value.hint == "one of: alpha-aaaaaaaa, alpha-aaaaaaaa-2"


def test_a_run_is_found_by_its_path_from_anywhere(three: Path, tmp_path: Path) -> None:
    path = str(three / "beta-bbbbbbbb")
    assert folder.find(tmp_path / "elsewhere", path).root.name == "beta-bbbbbbbb"


@pytest.mark.parametrize("asked", ["gamma", "../x", "*", "beta-bbbbbbbb/stages"])
def test_a_run_that_is_not_there_is_said_so(asked: str, three: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        folder.find(three, asked)


def test_no_runs_at_all(tmp_path: Path) -> None:
    assert folder.every(tmp_path / "nowhere") == []
    with pytest.raises(UsageError, match="there is no run"):
        folder.find(tmp_path / "nowhere", None)


def test_what_a_killed_launcher_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / ".new-old", tmp_path / ".new-young"
    for path in (old, young):
        (path / "journal").mkdir(parents=True)
    before = time.time() - folder.LEFT_S - 1
    os.utime(old, (before, before))
    create(tmp_path)
    assert not old.exists() and young.exists()


def test_what_a_killed_launcher_left_is_no_run(three: Path) -> None:
    (three / ".new-0123").mkdir()
    (three / ".new-0123" / "plan.json").write_text("{}")
    (three / "notes").mkdir()
    assert [run.root.name for run in folder.every(three)] == [
        "alpha-aaaaaaaa", "alpha-aaaaaaaa-2", "beta-bbbbbbbb",
    ]  # fmt: skip


def test_a_plan_that_is_damaged_is_an_error_in_words(three: Path) -> None:
    run = folder.find(three, "beta")
    run.plan.write_text('{"schema_version": 1}')
    with pytest.raises(LauncherError):
        folder.load_plan(run)


def announced(run: RunPaths) -> None:
    journal.append(run.journal, journal.Event("again", 0, "sft"))


def test_what_a_stage_had_left_goes_to_one_folder_though_two_commands_moved_it(
    tmp_path: Path,
) -> None:
    run = RunPaths(tmp_path)
    stage = run.stage("sft")
    stage.logs.mkdir(parents=True)
    announced(run)
    again.clear(run, journal.read(run.journal))
    assert not list(stage.root.glob("old-*")), "it had left nothing"

    stage.checkpoints.mkdir()
    announced(run)
    # A command that was killed had moved the first file.
    stage.old(3).mkdir()
    (stage.old(3) / "COMPLETE.json").touch()
    announced(run)
    again.clear(run, journal.read(run.journal))
    (aside,) = stage.root.glob("old-*")
    assert {path.name for path in aside.iterdir()} == {"COMPLETE.json", "checkpoints"}
    assert not again.clear(run, journal.read(run.journal))
