"""An id proves nothing: what is not this run's own by tag and owner is left alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import act, folder
from launcher.scheduler.jobs import tag
from tests.unit.running import ON_SLURM

TOKEN = "f00d" * 8


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """sft is submitted as job 7."""
    made, _ = folder.create(tmp_path / "runs", ON_SLURM, {"name": "chain"}, new=False)
    for kind, job in (("intent", None), ("submitted", "7")):
        event = journal.Event(kind, time.time(), "sft", TOKEN, job)  # type: ignore[arg-type]
        journal.append(made.journal, event)
    return made


def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, queue: str) -> Path:
    """A Slurm of words: `squeue` prints `queue` for this user, the others note what they get."""
    tools = folder / "bin"
    tools.mkdir()
    noted = folder / "noted"
    noted.touch()
    (tools / "squeue").write_text(
        f'#!/bin/bash\n[[ " $* " == *" --user={os.getuid()} "* ]] && printf "{queue}"\nexit 0\n'
    )
    for name in ("scancel", "scontrol", "sbatch"):
        (tools / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {noted}\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return noted


def test_a_cancel_after_the_id_was_given_to_another_job(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = slurm(tmp_path, monkeypatch, "7|RUNNING|None|N/A|n1|(null)|(null)\\n")
    act.cancel(run, ON_SLURM)
    assert "7" not in noted.read_text()


def test_a_cancel_while_a_run_of_another_folder_has_the_id(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tag("another-run", "sft", TOKEN)
    noted = slurm(tmp_path, monkeypatch, f"7|RUNNING|None|N/A|n1|(null)|{other}\\n")
    act.cancel(run, ON_SLURM)
    assert "7" not in noted.read_text()


def test_the_same_cancel_ends_the_job_where_it_is_this_runs_own(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tag(run.root.name, "sft", TOKEN)
    noted = slurm(tmp_path, monkeypatch, f"7|RUNNING|None|N/A|n1|(null)|{own}\\n")
    act.cancel(run, ON_SLURM)
    assert "7" in noted.read_text()
