"""Folders and files that another user made, or could have written, are not believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from launcher.errors import LauncherError, UsageError
from launcher.plan.make import make_plan
from launcher.records import files, journal, ownership
from launcher.records.paths import RunPaths
from launcher.run import folder, lock
from launcher.scheduler import shell
from tests.attacks.canary import Canary
from tests.unit.command import launcher
from tests.unit.planning import EIGHTY, cluster, pinned, recipe, shapes, stage
from tests.unit.running import ON_SLURM, ON_THIS_MACHINE

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
MALLORY = 4711


def created(runs: Path) -> RunPaths:
    run, _ = folder.create(runs, ON_THIS_MACHINE, {"name": "chain"}, new=False)
    return run


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_a_folder_of_runs_that_others_may_write(mode: int, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    runs.chmod(mode)
    with pytest.raises(UsageError, match="can be written by others") as refused:
        created(runs)
    assert refused.value.hint is not None and f"chmod go-w {runs}" in refused.value.hint
    assert list(runs.iterdir()) == []


def test_a_folder_of_runs_and_a_run_that_belong_to_another_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    runs = files.private_folder(tmp_path / "runs")
    run = created(runs)
    os.chown(run.root, MALLORY, MALLORY)
    with pytest.raises(UsageError, match="belongs to another user"):
        folder.load_plan(run)
    os.chown(runs, MALLORY, MALLORY)
    with pytest.raises(UsageError, match="belongs to another user"):
        created(runs)


def test_a_run_folder_that_was_made_beforehand_is_not_gone_on_with(tmp_path: Path) -> None:
    runs = files.private_folder(tmp_path / "runs")
    made = created(runs)
    made.root.chmod(0o777)
    (made.plan).write_text(made.plan.read_text())
    words = ("status", made.root.name, "--runs", runs)
    assert "can be written by others (mode 0777)" in launcher(*words, folder=tmp_path, code=2).err
    made.root.chmod(0o700)
    made.journal.chmod(0o777)
    for verb in ("status", "resume", "cancel"):
        words = (verb, made.root.name, "--runs", runs)
        assert "is not believed" in launcher(*words, folder=tmp_path, code=2).err


@pytest.mark.parametrize(
    "name",
    ["plan.json", "recipe.yaml", "code", "journal", "stages", "lock", "local.log", "local.lock"],
)
def test_a_link_where_a_run_has_a_file(name: str, tmp_path: Path) -> None:
    run = created(tmp_path / "runs")
    target = tmp_path / "elsewhere"
    place = run.root / name
    if place.exists():
        place.rename(target)
    else:
        target.write_text("precious")
    place.symlink_to(target)
    with pytest.raises(UsageError, match="is a link"):
        folder.load_plan(run)


@pytest.mark.parametrize("name", ["COMPLETE.json", "model", "attempts", "logs", "progress.json"])
def test_a_link_where_a_stage_has_a_file(name: str, tmp_path: Path) -> None:
    run = created(tmp_path / "runs")
    files.private_folder(run.stage("sft").root)
    (run.stage("sft").root / name).symlink_to(tmp_path)
    why = ownership.planted(run)
    assert why is not None and f"{name} is a link" in why


def test_a_link_that_appears_later_is_not_written_through(tmp_path: Path) -> None:
    run = created(tmp_path / "runs")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for path in (run.lock, run.local_log, run.stage("sft").metrics):
        files.private_folder(path.parent)
        path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"), lock.only_one(run):
        pass
    with pytest.raises(OSError, match="symbolic link"):
        shell.detach(["true"], run.local_log, {})
    with pytest.raises(OSError, match="symbolic link"):
        files.append_line(run.stage("sft").metrics, "{}")
    run.stage("sft").progress.symlink_to(precious)
    files.write_json(run.stage("sft").progress, {})
    (run.journal / "000002.json").symlink_to(precious)
    event = journal.append(run.journal, journal.Event("resumed", 1.0))
    assert event.number == 3
    assert precious.read_text() == "precious"


def test_a_run_made_under_umask_000_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run = created(tmp_path / "runs")
        journal.append(run.journal, journal.Event("resumed", 1.0))
        files.private_folder(run.stage("sft").logs)
        files.append_line(run.stage("sft").metrics, "{}")
        with lock.only_one(run):
            pass
    finally:
        os.umask(before)
    for path in (tmp_path / "runs", *run.root.rglob("*"), run.root):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../up", "..", "."])
def test_a_name_that_leads_elsewhere(name: str, tmp_path: Path, canary: Canary) -> None:
    runs = tmp_path / "runs"
    words = ("submit", RECIPES / "tiny" / "sft.yaml", "--cluster", "local", "--runs", runs, "--yes")
    launcher(*words, f"name={name}", folder=tmp_path, code=2)
    launcher(*words, f"stages.sft.train.output_dir={canary.path}", folder=tmp_path, code=2)
    assert not runs.exists() and not canary.sang


@pytest.mark.parametrize("place", ["/", "~"])
def test_runs_at_the_root_or_in_the_home(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = sorted(Path("/").iterdir())
    with pytest.raises(UsageError, match="itself"):
        folder.create(Path(place).expanduser(), ON_SLURM, {"name": "chain"}, new=False)
    assert sorted(Path("/").iterdir()) == before and list(tmp_path.iterdir()) == []


def test_runs_of_several_nodes_on_a_disk_that_each_node_has_for_itself() -> None:
    wide = stage("sft", "Qwen/Qwen2.5-7B", resources=pinned(nodes=2, gpus=16))
    plan = make_plan(recipe(wide), cluster(EIGHTY), shapes, trl_version="1.16.0")
    assert plan.stages[0].allocation.all_nodes == 2
    runs = Path("/dev/shm/launcher-attack-runs")
    with pytest.raises(UsageError, match="each node's own"):
        folder.create(runs, plan, {"name": "chain"}, new=False)
    assert not runs.exists()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    other = files.private_folder(tmp_path / "runs" / "notes")
    (other / "keep").write_text("mine")
    for verb in ("status", "resume", "cancel"):
        words = (verb, str(other), "--runs", tmp_path / "runs")
        launcher(*words, folder=tmp_path, code=2)
    (other / "plan.json").write_text("{}")
    with pytest.raises(LauncherError):
        folder.load_plan(RunPaths(other))
    assert (other / "keep").read_text() == "mine"
