"""Why a round failed, what is done about it, and how long a trainer may take."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.plan.types import Prediction, StagePlan
from launcher.recipe.types import Command, Resources
from launcher.records.attempts import Attempt, Failure, Kind
from launcher.records.failures import RESPONSES, Decision, FailureClass, decide, first_rung
from launcher.records.rounds import Ending
from launcher.worker import deadlines, diagnosis
from launcher.worker.classify import kind_of
from launcher.worker.outcome import STOPPED, USER_ERROR, Ends
from tests.unit.planning import LAPTOP, plan_one, stage

STOPPED_BY: FailureClass = "preempted"


def attempt(**keywords: Any) -> Attempt:
    return Attempt(**{"number": 1, "token": "t", "job_id": "7", "host": "n", "processes": 1,
                      "started": 0.0, **keywords})  # fmt: skip


def ending(rank: int, code: int, **keywords: Any) -> Ending:
    return Ending(rank, code, **keywords)


def said(*kinds: Kind) -> list[Failure]:
    return [Failure(rank, f"of {kind}", "", kind) for rank, kind in enumerate(kinds)]


class DistBackendError(RuntimeError):
    pass


class ReadTimeout(Exception):
    pass


class OfflineModeIsEnabled(Exception):
    pass


class SafetensorError(Exception):
    """That of safetensors, whose own takes torch's time to import."""


DistBackendError.__module__ = "torch.distributed"
ReadTimeout.__module__ = OfflineModeIsEnabled.__module__ = "httpx"


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate"
                " memory: you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "host memory",
        ),
        (MemoryError(), "host memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (OSError(errno.EROFS, "Read-only file system"), "disk"),
        (OSError(errno.ESTALE, "Stale file handle"), "disk"),
        (OSError(errno.EIO, "Input/output error", "/run/tokenizer_config.json"), "disk"),
        (OSError(errno.EIO, "Input/output error"), "disk"),
        (OSError(errno.EREMOTEIO, "Remote I/O error"), "disk"),
        (OSError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown"), "disk"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected", "/mnt/fuse/a"), "disk"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), "program"),
        (OSError(errno.ETIMEDOUT, "Connection timed out", "/mnt/nfs/a"), "disk"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "program"),
        (OSError(errno.EACCES, "Permission denied", "/mnt/nfs/a"), "program"),
        (SafetensorError("I/O error: Input/output error (os error 5)"), "disk"),
        (SafetensorError("Transport endpoint is not connected (os error 107)"), "disk"),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:9] Transport endpoint is not connected"),
            "lost rank",
        ),
        (RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'), "disk"),
        (RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0"), "disk"),
        (OSError(errno.ENOENT, "No such file or directory"), "program"),
        (ConnectionResetError("reset"), "network"),
        (raised_from(OSError("cannot load"), ReadTimeout("slow")), "network"),
        (OfflineModeIsEnabled("not cached"), "program"),
        (DistBackendError("NCCL error"), "lost rank"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), "lost rank"),
        (RuntimeError("The server socket has failed: EADDRINUSE"), "lost rank"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), "killed"),
        (Ends("nan", "the loss of step 3 is not a finite number"), "nan"),
        (RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"), "nan"),
        (UsageError("no such column"), "user"),
        (KeyError("chosen"), "program"),
    ],
)
def test_an_exception_has_a_class(error: BaseException, kind: str) -> None:
    assert kind_of(error, on_cpu=False) == kind


def test_where_processors_train_the_hosts_memory_is_the_devices() -> None:
    assert kind_of(MemoryError(), on_cpu=True) == "out of memory"
    words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    assert kind_of(RuntimeError(words), on_cpu=True) == "out of memory"


@pytest.mark.parametrize(
    ("endings", "kinds", "failed"),
    [
        ([ending(0, 0), ending(1, 0)], [], None),
        ([ending(0, STOPPED, told=True), ending(1, STOPPED)], [], STOPPED_BY),
        # A rank that left while it loaded, and one that waited for it.
        ([ending(0, STOPPED, told=True), ending(1, 137, killed="others")], [], STOPPED_BY),
        ([ending(0, 137, killed="time", told=True), ending(1, 137, killed="time", told=True)],
         ["preempted"], STOPPED_BY),
        # One that was told, and the others' complaint that it is gone.
        ([ending(0, 137, killed="time", told=True), ending(1, 1)], ["preempted", "lost rank"],
         STOPPED_BY),
        ([ending(0, 1, told=True), ending(1, 137, killed="others")], ["disk"], "disk"),
        ([ending(0, 1), ending(1, 137)], ["lost rank", "killed"], "lost rank"),
        # Words that nobody knows, of a rank whose neighbour was killed.
        ([ending(0, 1), ending(1, 137)], ["program", "killed"], "lost rank"),
        ([ending(0, 1), ending(1, 134)], ["program", "lost rank"], "program"),
        ([ending(0, 1), ending(1, 137, killed="others")], ["program"], "program"),
        ([ending(0, 137, killed="hang"), ending(1, 1)], ["hang", "program"], "hang"),
        ([ending(0, 137, out_of_host_memory=True), ending(1, 1)], ["killed", "lost rank"],
         "host memory"),
        ([ending(0, 1), ending(1, 1)], ["lost rank", "out of memory"], "out of memory"),
        ([ending(0, USER_ERROR), ending(1, 1)], ["nan", "lost rank"], "nan"),
        ([ending(0, 1)], ["lost rank"], "lost rank"),
        ([ending(0, 137, killed="ending"), ending(1, 137, killed="ending")], ["node"], "node"),
        ([ending(0, 3), ending(1, 137, killed="others")], [], "program"),
        ([ending(0, 1), ending(1, 1)], ["network", "lost rank"], "network"),
    ],
)  # fmt: skip
def test_a_round_has_one_class_from_what_its_ranks_left(
    endings: list[Ending], kinds: list[Kind], failed: FailureClass | None
) -> None:
    assert diagnosis.failure_class(endings, said(*kinds), 2, STOPPED_BY) == failed


def test_a_stage_fails_as_its_server_does_whatever_its_trainers_say_for_want_of_it() -> None:
    endings = [ending(0, 1), ending(1, 1)]
    cases: tuple[tuple[Kind, FailureClass], ...] = (
        ("program", "program"),
        ("killed", "lost rank"),
    )
    for kind, failed in cases:
        server = Failure(2, "the vLLM server ended", "", kind)
        found = [*said("network", "lost rank"), server]
        assert diagnosis.failure_class(endings, found, 2, STOPPED_BY) == failed


def test_a_signal_near_the_limit_is_of_the_limit_and_a_minute_early_too() -> None:
    assert diagnosis.told_class(60 * 60 - 120 - 60, 60, 120) == "time limit"
    assert diagnosis.told_class(30 * 60, 60, 120) == "preempted"


def test_the_failure_to_tell_of_is_the_one_of_the_class() -> None:
    found = said("program", "killed")
    first = diagnosis.first(found, "lost rank", 2)
    assert first is not None and first.kind == "killed"
    server = Failure(2, "the vLLM server ended", "", "program")
    assert diagnosis.first([*found, server], "lost rank", 2) == server


def failed(*classes: FailureClass, **keywords: Any) -> list[Attempt]:
    return [attempt(number=i, failed=each, **keywords) for i, each in enumerate(classes, 1)]


@pytest.mark.parametrize("name", [n for n, r in RESPONSES.items() if r.bound])
def test_what_may_pass_is_tried_again_until_its_bound(name: FailureClass) -> None:
    response = RESPONSES[name]
    history = failed(*[name] * response.bound)
    assert decide(history, name, 0) == Decision(response.answer, 0, name, response.pause_s)
    more = failed(*[name] * (response.bound + 1))
    assert decide(more, name, 0) == Decision("end", 0, "no progress")


@pytest.mark.parametrize("name", ["nan", "user", "changed", "program", "no progress"])
def test_what_would_fail_again_ends_at_once(name: FailureClass) -> None:
    assert decide(failed(name), name, 5).answer == "end"


def test_progress_another_rung_or_another_submission_begin_the_count_anew() -> None:
    bound = RESPONSES["hang"].bound
    hang: FailureClass = "hang"
    many = failed(*[hang] * (bound + 1))
    assert decide(many, "hang", 0).answer == "end"
    went_on = [*many[:-1], replace(many[-1], began_at=4, reached=8)]
    assert decide(went_on, "hang", 0).answer == "again"
    before = [*many[:1], replace(many[1], reached=4), *many[2:]]
    assert decide(before, "hang", 0).answer == "again"
    assert decide([*many[:-1], replace(many[-1], rung=1)], "hang", 1).answer == "again"
    assert decide([*many[:-1], replace(many[-1], token="u")], "hang", 0).answer == "again"


def test_failures_of_two_kinds_that_alternate_end_too() -> None:
    history: list[Attempt] = []
    for number in range(100):
        name: FailureClass = "preempted" if number % 2 else "lost rank"
        history.append(attempt(number=number, failed=name))
        if decide(history, name, 0).answer == "end":
            break
    assert len(history) == 2 * RESPONSES["lost rank"].bound + 1


def test_memory_that_ran_out_climbs_to_the_ladders_end() -> None:
    assert decide(failed("out of memory"), "out of memory", 2) == Decision(
        "rung", 1, "out of memory"
    )
    assert decide(failed("out of memory", rung=2), "out of memory", 2).answer == "end"


def test_the_next_attempt_begins_on_the_rung_that_the_receipts_tell() -> None:
    assert first_rung([]) == 0
    ran_out = attempt(rung=1, answer="rung")
    assert first_rung([attempt(), ran_out]) == 2
    # Started there, and preempted; an older submission's job, which did nothing.
    after = [ran_out, attempt(rung=2, answer="requeue"), attempt(outcome="superseded")]
    assert first_rung(after) == 2
    assert first_rung([*after, attempt(rung=2)]) == 2


def planned(slowest: float, **resources: Any) -> StagePlan:
    made = plan_one(stage("sft", "tiny", resources=Resources(**resources)), LAPTOP)
    prediction = Prediction(slowest, slowest, 1.0, None, None, None, None, None)
    return replace(made, prediction=prediction)


def test_a_hang_is_a_generous_multiple_of_the_slowest_step_and_longer_while_loading() -> None:
    quick, slow = deadlines.silence(planned(0.1)), deadlines.silence(planned(600.0))
    assert quick == deadlines.Silence(deadlines.HANG_FLOOR_S, deadlines.LOADING_S)
    assert slow.steps == 600 * deadlines.SLOWER and slow.slow == slow.steps


def test_a_recipe_may_say_how_long_is_a_hang() -> None:
    assert deadlines.silence(planned(600.0, hang_timeout_s=30)).steps == 30
    assert deadlines.silence(planned(0.1, hang_timeout_s=7200)).slow == 7200
    program = planned(0.1)
    program = replace(program, stage=replace(program.stage, command=Command(("true",))))
    assert deadlines.silence(program) == deadlines.Silence(None, None)


def test_a_stop_leaves_time_for_the_requeue() -> None:
    assert deadlines.to_stop(120, warned=True) == 120 - deadlines.REQUEUE_S
    assert deadlines.to_stop(20, warned=True) == 10
    assert deadlines.to_stop(600, warned=False) == deadlines.TERM_S
