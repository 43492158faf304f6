"""Why a job that is over did not finish its stage, and what is answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.records.attempts import Attempt, Failure
from launcher.records.failures import RESPONSES, FailureClass
from launcher.records.journal import Submission
from launcher.run.diagnose import answer, failure, history
from launcher.scheduler.jobs import QueuedJob

SENT = Submission("sft", "t", "41", tokens=("t",))
OPEN = Attempt(1, "t", "41", "host", 1, 1.0)


def over(word: str) -> QueuedJob:
    return QueuedJob("41", "launcher:r:sft:t", "failed", word)


def ended(**keywords: object) -> Attempt:
    return replace(OPEN, ended=2.0, **keywords)  # type: ignore[arg-type]


CASES: dict[str, tuple[str, list[Attempt], QueuedJob | None]] = {
    "what the receipt says goes first": (
        "nan", [ended(outcome="error", failed="nan")], over("NODE_FAIL"),
    ),
    "a node": ("node", [OPEN], over("NODE_FAIL")),
    "a node that did not boot": ("node", [], over("BOOT_FAIL")),
    "a time limit that nobody heard of": ("time limit", [OPEN], over("TIMEOUT")),
    "a preemption that ends jobs": ("preempted", [OPEN], over("PREEMPTED")),
    "host memory": ("host memory", [OPEN], over("OUT_OF_MEMORY")),
    "killed on a node that lives": ("lost rank", [OPEN], over("FAILED")),
    "gone with a receipt that has no end": ("node", [OPEN], None),
    "gone without a trace": ("controller", [], None),
    "a script that did not come to the program": ("lost rank", [], over("FAILED")),
    "an error of the user's": (
        "user", [ended(outcome="error", failure=Failure(0, "m", "", "user"))], over("FAILED"),
    ),
    "an error of a program": ("program", [ended(outcome="error")], over("FAILED")),
    "told to stop and not put back": ("preempted", [ended(outcome="stopped")], None),
    "another submission's receipt says nothing": (
        "controller", [replace(OPEN, token="u", outcome="error", failed="nan")], None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_failure_has_the_class_that_receipts_and_slurm_tell(name: str) -> None:
    expected, receipts, job = CASES[name]
    assert failure(SENT, receipts, job) == expected


def test_what_was_found_once_stays_found_when_slurm_has_forgotten_the_job() -> None:
    found = replace(SENT, failure="node")
    assert failure(found, [], None) == "node"


def test_submissions_that_left_no_receipt_count_until_the_bound() -> None:
    bound = RESPONSES["controller"].bound
    for sent in range(1, bound + 3):
        tokens = tuple(f"t{n}" for n in range(sent))
        submission = Submission("sft", tokens[-1], "41", tokens=tokens)
        decision = answer(submission, [], "controller", rungs=0, reached=0)
        ends = sent > bound
        assert (decision.answer == "end") == ends
        assert decision.failure == ("no progress" if ends else "controller")


def test_attempts_that_died_silently_count_by_what_was_found_of_their_jobs() -> None:
    bound = RESPONSES["lost rank"].bound
    tokens = tuple(f"t{n}" for n in range(bound + 1))
    receipts = [replace(OPEN, number=n, token=token) for n, token in enumerate(tokens, 1)]
    found: dict[str, FailureClass] = dict.fromkeys(tokens[:-1], "lost rank")
    submission = Submission("sft", tokens[-1], "41", tokens=tokens, before=found)
    decision = answer(submission, receipts, "lost rank", rungs=0, reached=0)
    assert (decision.answer, decision.failure) == ("end", "no progress")
    # Each class has its own bound.
    other = replace(submission, before=dict.fromkeys(found, "preempted"))
    assert answer(other, receipts, "lost rank", rungs=0, reached=0).answer == "again"


def test_an_attempt_that_died_silently_came_to_where_the_next_began_or_the_newest_checkpoint() -> (
    None
):
    one, two = replace(OPEN, token="a"), replace(OPEN, number=2, token="b", began_at=4)
    submission = Submission("sft", "b", "42", tokens=("a", "b"))
    past = history(submission, [one, two], reached=8)
    assert [(a.began_at, a.reached) for a in past] == [(0, 4), (4, 8)]
    # Whoever makes progress may go on for ever.
    assert answer(submission, [one, two], "lost rank", rungs=0, reached=8).answer == "again"


def test_what_its_supervisor_ended_is_ended() -> None:
    receipt = ended(outcome="error", failed="lost rank", answer="end")
    assert answer(SENT, [receipt], "lost rank", rungs=0, reached=0).answer == "end"


def test_memory_that_ran_out_takes_the_next_rung_while_there_is_one() -> None:
    receipt = ended(outcome="error", failed="out of memory", rung=1)
    decision = answer(SENT, [receipt], "out of memory", rungs=2, reached=0)
    assert (decision.answer, decision.rung) == ("rung", 2)
    decision = answer(SENT, [replace(receipt, rung=2)], "out of memory", rungs=2, reached=0)
    assert decision.answer == "end"
