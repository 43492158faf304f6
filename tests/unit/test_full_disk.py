"""A disk that is full, read-only or gone: nothing is half made, and no training ends for a log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.recipe.types import Command, Stage
from launcher.records import (
    attempts,
    checkpoints,
    commits,
    complete,
    failures,
    files,
    journal,
    progress,
)
from launcher.records.paths import RunPaths, StagePaths
from launcher.run import folder
from launcher.worker import child, streams
from launcher.worker import disk as disks
from launcher.worker.checkpoint import Committed
from launcher.worker.child import Ran
from launcher.worker.context import Context
from launcher.worker.signals import Signals
from launcher.worker.supervision import lead, patience
from launcher.worker.supervision.job import Job
from tests.unit.command import launcher
from tests.unit.planning import LAPTOP, plan, recipe
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


# Supervisors


@pytest.fixture
def run(disk: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """On the small disk; a supervisor tries again soon, and not for long."""
    monkeypatch.setattr(disks, "AGAIN_S", 0.1)
    monkeypatch.setattr(disks, "PATIENCE_S", 5.0)
    again = failures.Response("again", 10)
    monkeypatch.setattr(failures, "RESPONSES", {**failures.RESPONSES, "disk": again})
    made, _ = folder.create(disk / "runs", ON_SLURM, {"name": "chain"}, new=False)
    for kind in ("intent", "submitted"):
        journal.append(made.journal, journal.Event(kind, 1.0, "sft", "f00d", "7"))
    return made


def job(run: RunPaths, restarts: int = 0, signals: Signals | None = None) -> Job:
    plan: Plan = ON_SLURM
    return Job(
        run, plan, plan.stage("sft"), "f00d", "7", restarts, 0, 1,
        signals or Signals(), lambda: False, time.time(),
    )  # fmt: skip


def finish(run: RunPaths) -> Ran:
    """What a trainer does at the end of its stage."""
    done = complete.Complete("sft", "sft", "f00d", time.time(), ())
    files.private_folder(run.stage("sft").root)
    complete.write(run.stage("sft"), done)
    return Ran(0)


def trained_twice(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]
) -> None:
    """Lead a job whose first trainer does `before` and fails, and whose second is done."""
    first = True

    def trainer(*_: Any) -> Ran:
        nonlocal first
        if not first:
            return finish(run)
        first = False
        before()
        return Ran(1)

    monkeypatch.setattr(child, "run", trainer)
    assert lead.lead(job(run), 0).exit_code == 0
    assert outcomes(run) == [("error", "disk", "again"), ("complete", None, None)]


def half_done(run: RunPaths) -> None:
    """What a trainer leaves that is killed when its checkpoint has filled the disk."""
    fill(checkpoints.path_of(commits.begin(run.stage("sft").checkpoints), 5).parent)


def outcomes(run: RunPaths) -> list[tuple[Any, ...]]:
    every = attempts.read(run.stage("sft").attempts)
    return [(each.outcome, each.failed, each.answer) for each in every]


def test_a_trainer_that_cannot_say_why_it_failed_on_a_full_disk_is_tried_again(
    run: RunPaths, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_for_a_while() -> None:
        ballast = fill(disk)
        # Another's file, which goes while the supervisor waits.
        threading.Timer(1, ballast.unlink).start()

    trained_twice(run, monkeypatch, fill_for_a_while)
    first, _ = attempts.read(run.stage("sft").attempts)
    assert first.failure and "could not say why" in first.failure.message
    assert "No space left" in first.failure.message


def test_a_checkpoint_that_was_left_half_done_makes_room_for_the_words_that_tell_of_it(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_twice(run, monkeypatch, lambda: half_done(run))


def test_a_start_finds_room_where_the_one_before_died_of_its_half_done_checkpoint(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts.start(run.stage("sft").attempts, job(run).receipt(0, 0))
    half_done(run)
    monkeypatch.setattr(child, "run", lambda *_: finish(run))
    assert lead.lead(job(run, 1), 0).exit_code == 0
    assert outcomes(run) == [("killed", "node", "requeue"), ("complete", None, None)]
    assert list(run.stage("sft").checkpoints.iterdir()) == []


@pytest.mark.parametrize("told", [False, True])
def test_a_supervisor_waits_for_a_disk_that_stays_full_for_a_while_and_not_when_it_must_end(
    run: RunPaths, disk: Path, told: bool
) -> None:
    fill(disk)
    began = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        lead.lead(job(run, signals=Signals(stop=told)), 0)
    assert (time.monotonic() - began > disks.PATIENCE_S) is not told


def test_an_error_of_another_sort_is_not_waited_for(run: RunPaths) -> None:
    def act() -> None:
        raise PermissionError(13, "Permission denied", "receipt")

    began = time.monotonic()
    with pytest.raises(PermissionError):
        patience.patient(job(run), act)
    assert time.monotonic() - began < disks.PATIENCE_S


def test_a_save_that_fails_leaves_no_half_done_checkpoint_in_its_way(disk: Path) -> None:
    class Trainer:
        accelerator = SimpleNamespace(is_main_process=True)
        args = SimpleNamespace(include_num_input_tokens_seen="all")
        state = SimpleNamespace(global_step=5, best_model_checkpoint=None)

        def _get_output_dir(self, trial: Any) -> str:
            return str(disk / "checkpoints")

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            where = Path(self._staging) / "checkpoint-5" / "model.safetensors"  # type: ignore[attr-defined]
            where.write_bytes(b"w" * 2**23)

    class Saves(Committed, Trainer):
        pass

    with pytest.raises(OSError, match="No space left"):
        Saves()._save_checkpoint(None, None)
    assert list((disk / "checkpoints").iterdir()) == []


def test_a_supervisor_whose_log_is_on_a_full_disk_does_its_work(run: RunPaths, disk: Path) -> None:
    finish(run)
    log = disk / "log"
    log.touch()
    fill(disk)
    program = (
        "import sys; from launcher.worker.supervisor import supervise\n"
        f"ended = supervise({str(run.root)!r}, 'sft', 'f00d', '7', lambda: False)\n"
        "print('x' * 9000)\n"
        "sys.exit(ended.exit_code)"
    )
    env = {**os.environ, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    with log.open("ab") as handle:
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, stdout=handle, stderr=handle, env=env)
    assert done.returncode == 0


def test_a_folder_of_runs_that_others_may_write_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    for mode in (0o777, 0o770, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(UsageError, match="others may write") as refused:
            folder.create(tmp_path, ON_SLURM, {"name": "chain"}, new=False)
        assert refused.value.hint and f"chmod go-w {tmp_path}" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


# A disk that does not answer for a moment

UNSTEADY = """
from launcher.records import failures
from launcher.worker import disk
disk.AGAIN_S, disk.PATIENCE_S = 0.1, {patience_s}
failures.RESPONSES = {{**failures.RESPONSES, "disk": failures.Response("again", 10)}}
import tests.faults.hook
"""
SUPERVISES = """
import sys
from launcher.worker.supervisor import supervise
ended = supervise(sys.argv[1], "own", "f00d", "7", lambda: False)
sys.exit(ended.exit_code + 10 * ended.requeue)
"""
SUPERVISOR, TRAINER = "launcher.worker.supervisor", "launcher.worker.train"


@dataclass(frozen=True)
class Unsteady:
    """A run of one program, on a disk that fails its supervisor or its trainer as it is told."""

    run: RunPaths
    home: Path

    def fails(self, process: str, file: str, error: str, *, times: int = 1, nth: int = 1) -> None:
        """Let that process fail to open the file so often, from the n-th time on."""
        mark = str(self.home / f"{process}.{file}.{nth}")
        rule = {"module": process, "events": ["open"], "path": re.escape(file) + "$",
                "writes": False, "nth": nth, "times": times, "mark": mark,
                "do": f"errno {error}"}  # fmt: skip
        rules = self.home / "hook.json"
        known = json.loads(rules.read_text()) if rules.exists() else []
        rules.write_text(json.dumps([*known, rule]))

    @property
    def hits(self) -> int:
        return len(list(self.home.glob("launcher.worker.*")))

    def supervise(self, patience_s: float) -> tuple[int, list[tuple[Any, ...]]]:
        """The exit code of its supervisor (ten more: it asks for a requeue), and what its receipts
        say."""
        (self.home / "sitecustomize.py").write_text(UNSTEADY.format(patience_s=patience_s))
        words = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "HOME": str(self.home)}
        path = f"{self.home}:{RECIPES.parent}"
        done = subprocess.run(
            [sys.executable, "-c", SUPERVISES, str(self.run.root)],
            env={**os.environ, **words, "PYTHONPATH": path,
                 "FAULT_HOOK": str(self.home / "hook.json")},
            timeout=120,
        )  # fmt: skip
        return done.returncode, [
            (each.outcome, each.failed, each.answer)
            for each in attempts.read(self.run.stage("own").attempts)
        ]


@pytest.fixture
def unsteady(tmp_path: Path) -> Unsteady:
    secrets = tmp_path / ".config" / "launcher" / "secrets.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("A_TOKEN=abcdefgh\n")
    secrets.chmod(0o600)
    program = Stage("own", "command", {}, command=Command(("true",)))
    made = plan(recipe(program), LAPTOP)
    run, _ = folder.create(tmp_path / "runs", made, {"name": "own"}, new=False)
    for kind in ("intent", "submitted"):
        journal.append(run.journal, journal.Event(kind, 1.0, "own", "f00d", "7"))
    return Unsteady(run, tmp_path)


COMPLETE = ("complete", None, None)


def test_a_moment_of_a_disk_at_the_plan_and_at_the_secrets_is_waited_out(
    unsteady: Unsteady,
) -> None:
    unsteady.fails(SUPERVISOR, "plan.json", "ESTALE", times=2)
    unsteady.fails(SUPERVISOR, "secrets.env", "EIO")
    # At the start of its trainer; the first reading does not come as far as this.
    unsteady.fails(SUPERVISOR, "secrets.env", "ESTALE", nth=2)
    unsteady.fails(TRAINER, "plan.json", "EIO", times=2)
    assert unsteady.supervise(60) == (0, [COMPLETE])
    assert unsteady.hits == 6


def test_a_trainer_that_cannot_read_its_plan_for_long_is_started_again(unsteady: Unsteady) -> None:
    unsteady.fails(TRAINER, "plan.json", "ESTALE")
    assert unsteady.supervise(0) == (0, [("error", "disk", "again"), COMPLETE])


@pytest.mark.parametrize(
    ("nth", "code", "receipts"),
    [
        # Before the first round: at another start of the job.
        (1, 11, [("error", "disk", "requeue")]),
        (2, 0, [("error", "disk", "again"), COMPLETE]),
    ],
)
def test_secrets_that_cannot_be_read_for_long_are_a_failure_of_the_disk(
    unsteady: Unsteady, nth: int, code: int, receipts: list[tuple[Any, ...]]
) -> None:
    unsteady.fails(SUPERVISOR, "secrets.env", "EIO", nth=nth)
    assert unsteady.supervise(0) == (code, receipts)
    (first, *_) = attempts.read(unsteady.run.stage("own").attempts)
    assert first.failure and "Input/output error" in first.failure.message


def test_a_folder_of_data_that_cannot_be_listed_now_is_no_change(unsteady: Unsteady) -> None:
    program = (
        "from pathlib import Path\n"
        "from launcher.records.inputs import fingerprint\n"
        f"fingerprint(Path({str(unsteady.home / '.config')!r}))\n"
    )
    rule = {"module": "fingerprint", "events": ["os.scandir"], "path": "launcher$", "times": 1,
            "mark": str(unsteady.home / "mark"), "do": "errno ESTALE"}  # fmt: skip
    (unsteady.home / "hook.json").write_text(json.dumps([rule]))
    done = subprocess.run(
        [sys.executable, "-c", f"import tests.faults.hook\n{program}"],
        env={**os.environ, "PYTHONPATH": str(RECIPES.parent),
             "FAULT_HOOK": str(unsteady.home / "hook.json")},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "Stale file handle" in done.stderr
