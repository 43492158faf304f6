"""A disk that is full, read-only or gone: nothing is half made, and no training ends for a log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launcher.errors import UsageError
from launcher.records import files, progress
from launcher.records.paths import StagePaths
from launcher.run import folder
from launcher.worker import streams
from launcher.worker.context import Context
from tests.unit.command import launcher
from tests.unit.running import ON_SLURM, ON_THIS_MACHINE

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of it; returns the file that takes them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as handle:
        for size in (2**16, 1):
            try:
                while True:
                    handle.write(b"x" * size)
            except OSError:
                continue
    return ballast


def test_a_submit_on_a_full_disk_says_so_makes_nothing_and_works_once_there_is_room(
    disk: Path,
) -> None:
    runs = files.private_folder(disk / "runs")
    ballast = fill(disk)
    words = ("submit", RECIPES / "tiny" / "sft.yaml", "--cluster", "local", "--runs", runs, "--yes")
    refused = launcher(*words, folder=disk.parent, code=1)
    assert "No space left on device" in refused.err and "hint: make room" in refused.err
    assert list(runs.iterdir()) == []
    # Room for the plan, and not for all of the code.
    with ballast.open("r+b") as handle:
        handle.truncate(ballast.stat().st_size - 2**19)
    refused = launcher(*words, folder=disk.parent, code=1)
    assert "No space left on device" in refused.err
    assert list(runs.iterdir()) == []
    ballast.unlink()
    _, made = folder.create(runs, ON_THIS_MACHINE, {"name": "chain"}, new=False)
    assert made


def test_a_submit_on_a_read_only_disk_says_so(disk: Path) -> None:
    runs = files.private_folder(disk / "runs")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    words = ("submit", RECIPES / "tiny" / "sft.yaml", "--cluster", "local", "--runs", runs, "--yes")
    assert "Read-only file system" in launcher(*words, folder=disk.parent, code=1).err


def test_a_journal_on_a_full_disk_keeps_every_event_whole(disk: Path) -> None:
    from launcher.records import journal

    run, _ = folder.create(disk / "runs", ON_SLURM, {"name": "chain"}, new=False)
    ballast = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        journal.append(run.journal, journal.Event("intent", 1.0, "sft", "f00d"))
    assert [event.kind for event in journal.read(run.journal)] == ["created"]
    assert [path.name for path in run.journal.iterdir()] == ["000001.json"]
    ballast.unlink()
    journal.append(run.journal, journal.Event("intent", 1.0, "sft", "f00d"))
    assert [event.number for event in journal.read(run.journal)] == [1, 2]


def test_progress_that_cannot_be_written_ends_nothing_and_is_told_once(
    disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_told", set[str]())
    paths = StagePaths(files.private_folder(disk / "stage"))
    place: Any = SimpleNamespace(is_main=True, token="f00d", phase_started=0.0, paths=paths)
    context = cast(Context, place)
    Context.report(context, "train", 1, 10)
    ballast = fill(disk)
    for step in (2, 3):
        Context.report(context, "train", step, 10)
        streams.forgive("metrics.jsonl", lambda: files.append_line(paths.metrics, "x" * 5000))
    said = capsys.readouterr().out
    assert said.count("progress.json is not written: No space left on device") == 1
    assert said.count("metrics.jsonl is not written") == 1
    now = progress.read(paths)
    assert now is not None and now.step == 1
    ballast.unlink()
    Context.report(context, "train", 4, 10)
    now = progress.read(paths)
    assert now is not None and now.step == 4


def test_printing_to_a_full_disk_ends_nothing(disk: Path) -> None:
    log = disk / "log"
    log.touch()
    fill(disk)
    program = (
        "import sys; from launcher.worker import streams; streams.guard()\n"
        "for line in range(2000): print('a line of a log', line, flush=True)\n"
        "print('another', file=sys.stderr)\n"
        "import os; sys.stdout.flush(); os._exit(7)\n"
    )
    with log.open("ab") as handle:
        done = subprocess.run([sys.executable, "-c", program], stdout=handle, stderr=handle)
    assert done.returncode == 7


def test_a_folder_of_runs_that_others_may_write_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    for mode in (0o777, 0o770, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(UsageError, match="others may write") as refused:
            folder.create(tmp_path, ON_SLURM, {"name": "chain"}, new=False)
        assert refused.value.hint and f"chmod go-w {tmp_path}" in refused.value.hint
    assert list(tmp_path.iterdir()) == []
