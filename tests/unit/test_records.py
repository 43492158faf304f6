"""Writing and reading in a run folder, by several at once and through crashes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from launcher.records import attempts, complete, files, journal
from launcher.records.attempts import Attempt
from launcher.records.complete import Complete, NotComplete
from launcher.records.journal import Event, Submission, submissions
from launcher.records.paths import RunPaths, StagePaths

FORK = multiprocessing.get_context("fork")
WRITERS = 4


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_are_their_owners_alone_under_any_umask(
    open_umask: None, tmp_path: Path
) -> None:
    folder = files.private_folder(tmp_path / "a" / "b")
    files.replace(folder / "replaced", b"x")
    files.claim(folder / "claimed", b"x")
    journal.append(folder / "journal", Event("created", 0.0))
    assert {mode(p) for p in (folder, folder.parent, folder / "journal")} == {0o700}
    found = [folder / "replaced", folder / "claimed", *(folder / "journal").iterdir()]
    assert {mode(path) for path in found} == {0o600}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    files.private_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_a_reader_meets_the_old_or_the_new_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    versions = [[number] * 5000 for number in range(2)]
    files.write_json(path, versions[0])
    over = threading.Event()

    def write() -> None:
        for number in range(40):
            files.write_json(path, versions[number % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not over.is_set() or not reads:
        assert files.read_json(path, list) in versions
        reads += 1
    writer.join()
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def _write_beyond_the_limit(path: Path) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        files.replace(path, b"new" * 10_000)
    except OSError as error:
        return type(error).__name__
    return "written"


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value"
    files.replace(path, b"old")
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        assert pool.submit(_write_beyond_the_limit, path).result(timeout=30) == "OSError"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["value"]


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_one_of_several_claimants_wins_and_its_file_is_whole(pool: str, tmp_path: Path) -> None:
    path = tmp_path / "claimed"
    values = [bytes([65 + number]) * 100_000 for number in range(WRITERS)]
    with _pool(pool) as workers:
        won = list(workers.map(files.claim, [path] * WRITERS, values))
    assert sorted(won) == [False] * (WRITERS - 1) + [True]
    assert path.read_bytes() == values[won.index(True)]
    assert [p.name for p in tmp_path.iterdir()] == ["claimed"]


def _pool(kind: str) -> ThreadPoolExecutor | ProcessPoolExecutor:
    if kind == "threads":
        return ThreadPoolExecutor(WRITERS)
    return ProcessPoolExecutor(WRITERS, mp_context=FORK)


def _append_ten(folder: Path, writer: int) -> list[int]:
    return [
        journal.append(folder, Event("intent", 0.0, stage=str(writer), token=str(n))).number
        for n in range(10)
    ]


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_several_writers_of_a_journal_lose_no_event_and_share_no_number(
    pool: str, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    with _pool(pool) as workers:
        numbers = list(workers.map(_append_ten, [folder] * WRITERS, range(WRITERS)))
    events = journal.read(folder)
    assert [event.number for event in events] == list(range(1, 10 * WRITERS + 1))
    for writer, mine in enumerate(numbers):
        told = [(e.number, e.token) for e in events if e.stage == str(writer)]
        assert told == list(zip(mine, map(str, range(10)), strict=True))


def test_a_journal_is_read_past_what_a_crashed_writer_left(tmp_path: Path) -> None:
    journal.append(tmp_path, Event("created", 1.0))
    (tmp_path / ".000002.json.5d41402abc").write_bytes(b'{"kind": "int')
    assert journal.append(tmp_path, Event("resumed", 2.0)).number == 2
    assert [event.kind for event in journal.read(tmp_path)] == ["created", "resumed"]


def test_an_event_follows_what_its_writer_has_read_or_is_not_written(tmp_path: Path) -> None:
    journal.append(tmp_path, Event("created", 1.0))
    mine = journal.append_after(tmp_path, Event("intent", 2.0, "s", "t"), 1)
    assert mine is not None and mine.number == 2
    assert journal.append_after(tmp_path, Event("intent", 3.0, "s", "u"), 1) is None
    assert [event.token for event in journal.read(tmp_path)] == [None, "t"]


def test_of_many_writers_that_have_read_the_same_one_writes(tmp_path: Path) -> None:
    journal.append(tmp_path, Event("created", 1.0))
    with ThreadPoolExecutor(8) as pool:
        tokens = [f"t{n}" for n in range(8)]
        wrote = list(
            pool.map(
                lambda token: journal.append_after(tmp_path, Event("intent", 2.0, "s", token), 1),
                tokens,
            )
        )
    (winner,) = (event for event in wrote if event is not None)
    assert journal.submissions(journal.read(tmp_path))["s"].token == winner.token


def test_submissions_are_counted_since_a_person_asked() -> None:
    def intent(token: str, *, asked: bool) -> Event:
        return Event("intent", 0, "s", token, asked=asked)

    events = [intent("a", asked=True), intent("b", asked=False), intent("c", asked=False)]
    assert journal.submissions(events)["s"].tokens == ("a", "b", "c")
    assert journal.submissions([*events, intent("d", asked=True)])["s"].tokens == ("d",)
    found = [events[0], Event("failed", 0, "s", "a", failure="node"), *events[1:]]
    assert journal.submissions(found)["s"].before == {"a": "node"}
    # Without Slurm a chain writes its intents itself, for whoever started it.
    by_advance = [Event("resumed", 0, asked=False), intent("d", asked=True)]
    assert journal.submissions([*events, *by_advance])["s"].tokens == ("a", "b", "c", "d")


def test_a_stage_is_to_be_run_again_until_its_files_are_aside_and_it_is_submitted() -> None:
    events = [Event("intent", 0, "s", "t"), Event("again", 0, "s", number=2)]
    events.append(Event("again", 0, "s", number=3))
    assert journal.anew(events) == {"s": 2} and journal.rerun(events) == frozenset({"s"})
    events.append(Event("cleared", 0, "s"))
    assert not journal.anew(events) and journal.rerun(events) == frozenset({"s"})
    events.append(Event("intent", 0, "s", "u"))
    assert not journal.rerun(events)


def test_an_event_of_an_unknown_kind_is_no_event(tmp_path: Path) -> None:
    (tmp_path / "000001.json").write_text('{"kind": "dreamt", "time": 1}')
    with pytest.raises(msgspec.ValidationError):
        journal.read(tmp_path)


FOLDS: dict[str, tuple[list[Event], Submission | None]] = {
    "nothing": ([Event("created", 0)], None),
    "an intent without an id": (
        [Event("intent", 0, "s", "t")],
        Submission("s", "t", None, tokens=("t",)),
    ),
    "an intent and its id": (
        [Event("intent", 0, "s", "t"), Event("submitted", 0, "s", "t", "7")],
        Submission("s", "t", "7", tokens=("t",)),
    ),
    "the newest intent counts": (
        [
            Event("intent", 0, "s", "t"),
            Event("submitted", 0, "s", "t", "7"),
            Event("intent", 0, "s", "u"),
        ],
        Submission("s", "u", None, tokens=("u",)),
    ),
    "an id that comes late belongs to its own intent": (
        [
            Event("intent", 0, "s", "t"),
            Event("intent", 0, "s", "u"),
            Event("submitted", 0, "s", "t", "7"),
        ],
        Submission("s", "u", None, tokens=("u",)),
    ),
    "cancelled": (
        [
            Event("intent", 0, "s", "t"),
            Event("submitted", 0, "s", "t", "7"),
            Event("cancelled", 0, "s", "t", "7"),
        ],
        Submission("s", "t", "7", cancelled=True, tokens=("t",)),
    ),
    "a cancelled submission is followed by another": (
        [
            Event("intent", 0, "s", "t"),
            Event("cancelled", 0, "s", "t"),
            Event("intent", 0, "s", "u"),
        ],
        Submission("s", "u", None, tokens=("u",)),
    ),
    "another stage's events": ([Event("intent", 0, "other", "t")], None),
    "an id without an intent": ([Event("submitted", 0, "s", "t", "7")], None),
}


@pytest.mark.parametrize("case", FOLDS)
def test_the_newest_submission_of_a_stage_is_folded_from_its_events(case: str) -> None:
    events, expected = FOLDS[case]
    assert submissions(events).get("s") == expected


def test_attempts_are_numbered_in_order_and_finished_in_place(tmp_path: Path) -> None:
    def begin(job: str) -> Attempt:
        return attempts.start(tmp_path, Attempt(0, "t", job, "host", 1, 1.0))

    with ThreadPoolExecutor(WRITERS) as pool:
        begun = list(pool.map(begin, map(str, range(12))))
    assert sorted(attempt.number for attempt in begun) == list(range(1, 13))
    last = max(begun, key=lambda attempt: attempt.number)
    attempts.finish(tmp_path, Attempt(last.number, "t", "x", "host", 1, 1.0, 2.0, "complete", 0))
    read = attempts.read(tmp_path)
    assert [attempt.number for attempt in read] == list(range(1, 13))
    assert read[-1].outcome == "complete"


def test_what_the_ranks_report_is_not_taken_for_attempts(tmp_path: Path) -> None:
    attempts.start(tmp_path, Attempt(0, "t", "7", "host", 2, 1.0))
    for rank in (1, 0):
        path = attempts.failure_path(tmp_path, "7", rank)
        files.write_json(path, attempts.Failure(rank, "it broke", "Traceback"))
        os.utime(path, (100 - rank, 100 - rank))
    files.write_json(attempts.failure_path(tmp_path, "8", 0), attempts.Failure(0, "later", ""))
    assert len(attempts.read(tmp_path)) == 1
    assert [failure.rank for failure in attempts.failures(tmp_path, "7")] == [1, 0]


@pytest.fixture
def finished(tmp_path: Path) -> StagePaths:
    """A stage with two artifacts and its COMPLETE.json."""
    stage = RunPaths(tmp_path).stage("sft")
    (stage.model / "deep").mkdir(parents=True)
    (stage.model / "weights").write_bytes(b"12345")
    (stage.model / "deep" / "config").write_bytes(b"{}")
    artifacts = complete.manifest(stage, [stage.model])
    complete.write(stage, Complete("sft", "sft", "t", 1.0, artifacts))
    return stage


def test_a_whole_stage_verifies_and_names_its_files_from_its_own_folder(
    finished: StagePaths,
) -> None:
    found = complete.verify(finished, hashes=True)
    assert [a.path for a in found.artifacts] == ["model/deep/config", "model/weights"]
    assert [a.size for a in found.artifacts] == [2, 5]


def test_what_a_stage_names_is_on_disk_before_it_says_so(
    finished: StagePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        settled.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    artifacts = complete.manifest(finished, [finished.model])
    complete.write(finished, Complete("sft", "sft", "t", 1.0, artifacts))
    first = next(n for n, path in enumerate(settled) if "COMPLETE" in path)
    model = finished.model
    wanted = {model / "weights", model / "deep" / "config", model / "deep", model, finished.root}
    assert {Path(path) for path in settled[:first]} == wanted


def _remove(stage: StagePaths) -> None:
    (stage.model / "weights").unlink()


def _cut(stage: StagePaths) -> None:
    (stage.model / "weights").write_bytes(b"1234")


def _change(stage: StagePaths) -> None:
    (stage.model / "weights").write_bytes(b"54321")


def _unfinish(stage: StagePaths) -> None:
    stage.complete.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove, "model/weights is missing, COMPLETE.json says 5"),
        (_cut, "model/weights has 4 bytes, COMPLETE.json says 5"),
        (_change, "model/weights changed since the stage finished"),
        (_unfinish, "has no COMPLETE.json"),
    ],
)
def test_a_damaged_stage_is_not_complete(
    damage: Callable[[StagePaths], None], words: str, finished: StagePaths
) -> None:
    damage(finished)
    with pytest.raises(NotComplete, match=words) as refused:
        complete.verify(finished, hashes=True)
    assert refused.value.hint


def test_hashes_are_read_only_when_asked_for(finished: StagePaths) -> None:
    _change(finished)
    complete.verify(finished)
