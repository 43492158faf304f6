"""Logs are read as they grow, line by line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.records import complete, files, journal
from launcher.records.complete import Complete
from launcher.records.paths import RunPaths
from launcher.run import log
from tests.unit.running import ON_THIS_MACHINE

PLAN = ON_THIS_MACHINE


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run of this machine whose stages were never begun."""
    monkeypatch.setattr(log, "POLL_S", 0.005)
    made = RunPaths(tmp_path / "chain-0a1b2c3d")
    journal.append(made.journal, journal.Event("created", 0.0))
    files.private_folder(made.stage("sft").logs)
    return made


def log_file(run: RunPaths, job: str = "41", rank: int = 0) -> Path:
    return run.stage("sft").logs / f"{job}_{rank}_log.out"


def finish(run: RunPaths) -> None:
    complete.write(run.stage("sft"), Complete("sft", "sft", "t", 1.0, ()))


def read(
    run: RunPaths, *, tail: int | None = None, follow: bool = False, rank: int = 0
) -> Iterator[str]:
    return log.read(run, PLAN, "sft", rank=rank, tail=tail, follow=follow)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"\n\nthree\n", ["", "", "three"]),
        (b"10%\r20%\r100%\nend\r\n", ["10%", "20%", "100%", "end"]),
        ("ünï\n\xff".encode("latin-1"), ["�n�", "�"]),
    ],
)
def test_a_log_is_read_to_its_end(text: bytes, lines: list[str], run: RunPaths) -> None:
    log_file(run).write_bytes(text)
    assert list(read(run)) == lines


@pytest.mark.parametrize(
    ("tail", "lines"),
    [(0, []), (1, ["three"]), (2, ["two", "three"]), (9, ["one", "two", "three"])],
)
def test_a_tail_counts_a_last_line_without_an_end(
    tail: int, lines: list[str], run: RunPaths
) -> None:
    log_file(run).write_text("one\ntwo\nthree")
    assert list(read(run, tail=tail)) == lines


def test_a_line_in_the_middle_of_a_chunk_stays_whole(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log._Lines, "_CHUNK", 3)
    log_file(run).write_bytes("größer\r\nas chunks\r\n".encode())
    assert list(read(run)) == ["größer", "as chunks"]


def following(run: RunPaths, write: Callable[[], None]) -> list[str]:
    """What `logs -f` yields while `write` runs beside it."""
    writer = threading.Thread(target=write)
    writer.start()
    lines = list(read(run, follow=True))
    writer.join()
    return lines


def test_following_yields_no_line_before_it_is_whole(run: RunPaths) -> None:
    path = log_file(run)
    path.write_text("first\nsec")

    def write() -> None:
        with path.open("ab", buffering=0) as handle:
            for piece in (b"ond", b" half\n", b"th", "ü".encode()[:1], "ü".encode()[1:], b"rd\n"):
                time.sleep(0.02)
                handle.write(piece)
        finish(run)

    assert following(run, write) == ["first", "second half", "thürd"]


def test_following_yields_what_was_written_last_though_the_line_never_ended(run: RunPaths) -> None:
    path = log_file(run)
    path.write_text("first\n")

    def write() -> None:
        time.sleep(0.02)
        with path.open("a") as handle:
            handle.write("Killed")
        finish(run)

    assert following(run, write) == ["first", "Killed"]


def test_following_waits_for_the_log_to_appear(run: RunPaths) -> None:
    def write() -> None:
        time.sleep(0.05)
        log_file(run).write_text("here\n")
        finish(run)

    assert following(run, write) == ["here"]


def test_without_a_log_there_is_nothing_to_read_and_nothing_to_wait_for(run: RunPaths) -> None:
    with pytest.raises(UsageError, match="no log of rank 0 yet"):
        list(read(run))
    finish(run)
    with pytest.raises(UsageError, match="no log of rank 0 yet"):
        list(read(run, follow=True))


def test_the_newest_job_of_the_asked_rank_is_read(run: RunPaths) -> None:
    for age, (job, rank) in enumerate([("42", 0), ("9", 1), ("41", 0)]):
        log_file(run, job, rank).write_text(f"{job} {rank}\n")
        os.utime(log_file(run, job, rank), (1000 + age, 1000 + age))
    assert list(read(run)) == ["41 0"]
    assert list(read(run, rank=1)) == ["9 1"]
