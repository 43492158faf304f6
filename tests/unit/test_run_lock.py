"""The lock of acting commands: a courtesy where the file system knows locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.records.paths import RunPaths
from launcher.run import lock

HOLD = """
import sys, time
from pathlib import Path
from launcher.records.paths import RunPaths
from launcher.run.lock import only_one
with only_one(RunPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def held_elsewhere(run: RunPaths) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_whose_holder_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    holder = held_elsewhere(run)
    holder.kill()
    holder.wait()
    with lock.only_one(run):
        assert run.lock.exists()


def test_a_lock_that_is_held_for_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunPaths(tmp_path)
    holder = held_elsewhere(run)
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
    try:
        with lock.only_one(run):
            assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_stops_nobody(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with lock.only_one(RunPaths(tmp_path)):
        pass


def test_a_folder_that_cannot_be_written_stops_nobody_here(tmp_path: Path) -> None:
    with lock.only_one(RunPaths(tmp_path / "missing")):
        pass
