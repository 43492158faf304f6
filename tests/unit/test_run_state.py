"""How a run stands, from every mix of what its folder and the scheduler say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from launcher.records.attempts import Attempt, Failure
from launcher.records.complete import Complete
from launcher.records.journal import Event
from launcher.records.progress import Progress
from launcher.run.state import RunState, StageRecords, View, fold
from launcher.scheduler.jobs import QueuedJob, QueueState, tag
from tests.unit.running import ON_SLURM

RUN = "chain-0a1b2c3d"
STAGES = ("sft", "rm", "ppo", "eval")
NOTHING = StageRecords(None, (), None)


def complete(stage: str) -> StageRecords:
    return StageRecords(Complete(stage, stage, stage, 9.0, (), metrics={"loss": 1.0}), (), None)


def attempt(token: str, **keywords: object) -> Attempt:
    return replace(Attempt(1, token, "41", "host", 1, 1.0), **keywords)  # type: ignore[arg-type]


def tried(token: str, **keywords: object) -> StageRecords:
    return StageRecords(None, (attempt(token, **keywords),), reached(token))


def reached(token: str) -> Progress:
    return Progress("train", 3, 10, 0.0, 0.0, token=token)


def sent(*stages: str, round: int = 1) -> list[Event]:
    """Intent and id of each stage; the token is its name and the round."""
    kinds: Sequence[tuple[str, str | None]] = (("intent", None), ("submitted", "41"))
    return [
        Event(kind, 0.0, stage, f"{stage}{round}", job_id)  # type: ignore[arg-type]
        for stage in stages
        for kind, job_id in kinds
    ]


def queued(
    stage: str, state: QueueState, word: str, reason: str = "", round: int = 1
) -> dict[str, QueuedJob]:
    key = tag(RUN, stage, f"{stage}{round}")
    return {key: QueuedJob("41", key, state, word, reason)}


def waiting(*stages: str) -> dict[str, QueuedJob]:
    jobs: dict[str, QueuedJob] = {}
    for stage in stages:
        jobs |= queued(stage, "pending", "PENDING", "waits for the stage before it")
    return jobs


@dataclass(frozen=True)
class Case:
    expected: str
    """The states of the stages, and the run's after a colon."""
    events: Sequence[Event] = ()
    records: Mapping[str, StageRecords] = field(default_factory=dict)
    queue: Mapping[str, QueuedJob] | None = field(default_factory=dict)
    chain_alive: bool | None = None
    settled: bool = False
    reason: tuple[str, str] | None = None
    """A stage, and what is said of it."""


CASES = {
    "nothing was submitted": Case("absent absent absent absent: absent"),
    "the first runs and the rest waits": Case(
        "running pending pending pending: running",
        sent(*STAGES),
        {"sft": tried("sft1")},
        queued("sft", "running", "RUNNING") | waiting("rm", "ppo", "eval"),
        reason=("rm", "waits for the stage before it"),
    ),
    "all is complete": Case(
        "complete complete complete complete: complete",
        sent(*STAGES),
        {stage: complete(stage) for stage in STAGES},
        settled=True,
    ),
    "complete beats what the queue still shows": Case(
        "complete pending pending pending: pending",
        sent(*STAGES),
        {"sft": complete("sft")},
        queued("sft", "running", "COMPLETING") | waiting("rm", "ppo", "eval"),
    ),
    "a failed stage blocks those after it": Case(
        "complete failed blocked blocked: failed",
        sent(*STAGES),
        {"sft": complete("sft"), "rm": tried("rm1", ended=2.0, outcome="error", exit_code=1)},
        queued("rm", "failed", "FAILED", "the program ended with an error")
        | queued("ppo", "blocked", "PENDING", "the stage before it failed")
        | waiting("eval"),
        settled=True,
        reason=("rm", "FAILED: the program ended with an error"),
    ),
    "a waiting stage behind a failed one is blocked before Slurm says so": Case(
        "complete failed blocked blocked: failed",
        sent(*STAGES),
        {"sft": complete("sft")},
        queued("rm", "failed", "FAILED") | waiting("ppo", "eval"),
        settled=True,
        reason=("ppo", "stage rm did not finish"),
    ),
    "the receipt's first failure is what is told": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        {"sft": tried("sft1", outcome="error", failure=Failure(0, "KeyError: 'text'", ""))},
        queued("sft", "failed", "FAILED", "the program ended with an error"),
        settled=True,
        reason=("sft", "KeyError: 'text'"),
    ),
    "an older submission's receipt says nothing of the newest": Case(
        "failed absent absent absent: failed",
        sent("sft", round=2),
        {"sft": tried("sft1", outcome="error", failure=Failure(0, "KeyError: 'text'", ""))},
        settled=True,
        reason=("sft", "the job is gone and left no receipt"),
    ),
    "a job that died without a word": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        {"sft": tried("sft1")},
        settled=True,
        reason=("sft", "it died without a word"),
    ),
    "a trainer that was killed, and Slurm has forgotten the job": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        {"sft": tried("sft1", outcome="killed", exit_code=137)},
        settled=True,
        reason=("sft", "its trainer was killed by signal 9"),
    ),
    "a job that ended well and left no COMPLETE has failed": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        queue=queued("sft", "complete", "COMPLETED"),
        settled=True,
        reason=("sft", "COMPLETED"),
    ),
    "scancel by hand": Case(
        "cancelled blocked blocked blocked: cancelled",
        sent(*STAGES),
        queue=queued("sft", "cancelled", "CANCELLED")
        | queued("rm", "blocked", "PENDING", "the stage before it failed")
        | waiting("ppo", "eval"),
        settled=True,
    ),
    "cancelled by launcher, the queue has forgotten": Case(
        "cancelled cancelled cancelled cancelled: cancelled",
        [
            *sent(*STAGES),
            *(Event("cancelled", 0.0, stage, f"{stage}1", "41") for stage in STAGES),
        ],
        settled=True,
    ),
    "cancelled while a failure that may pass was waiting for its answer": Case(
        "cancelled cancelled cancelled cancelled: cancelled",
        [*sent("sft", "rm"), Event("intent", 0.0, "ppo", "ppo1"), Event("cancelled", 0.0)],
        {"sft": tried("sft1")},
        settled=True,
        reason=("sft", "it died without a word"),
    ),
    "submitted again after a cancellation": Case(
        "pending cancelled absent absent: cancelled",
        [
            *sent("sft", "rm"),
            Event("cancelled", 0.0, "sft", "sft1"),
            Event("cancelled", 0.0, "rm", "rm1"),
            *sent("sft", round=2),
        ],
        queue=queued("sft", "pending", "PENDING", round=2),
    ),
    "a submission that was interrupted before sbatch": Case(
        "pending absent absent absent: pending",
        [*sent("sft"), Event("intent", 0.0, "rm", "rm1")],
        queue=waiting("sft"),
        reason=("rm", "its submission was interrupted"),
    ),
    "a submission that was interrupted after sbatch is found by its tag": Case(
        "pending pending absent absent: pending",
        [*sent("sft"), Event("intent", 0.0, "rm", "rm1")],
        queue=waiting("sft", "rm"),
    ),
    "another run's job is not taken for this one's": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        queue={"launcher:other-1:sft:sft1": QueuedJob("41", "", "running", "RUNNING")},
        settled=True,
    ),
    "Slurm does not answer": Case(
        "complete unknown absent absent: unknown",
        sent("sft", "rm"),
        {"sft": complete("sft")},
        queue=None,
        reason=("rm", "Slurm does not answer"),
    ),
    "a requeued job waits": Case(
        "pending pending pending pending: pending",
        sent(*STAGES),
        {"sft": tried("sft1", outcome="stopped", ended=2.0)},
        queued("sft", "pending", "REQUEUED") | waiting("rm", "ppo", "eval"),
    ),
    "without Slurm, stages that are not begun wait": Case(
        "running pending pending pending: running",
        sent("sft"),
        queue=queued("sft", "running", "RUNNING"),
        chain_alive=True,
    ),
    "without Slurm, the chain died": Case(
        "failed absent absent absent: failed",
        sent("sft"),
        {"sft": tried("sft1")},
        chain_alive=False,
        settled=True,
    ),
    "without Slurm, the chain died between two stages": Case(
        "complete absent absent absent: absent",
        sent("sft"),
        {"sft": complete("sft")},
        chain_alive=False,
        settled=True,
        reason=("rm", "nothing runs the chain"),
    ),
    "without Slurm, cancelled": Case(
        "cancelled cancelled cancelled cancelled: cancelled",
        [*sent("sft"), Event("cancelled", 0.0), Event("cancelled", 0.0, "sft", "sft1")],
        settled=True,
    ),
    "without Slurm, what failed is pending once the chain goes on": Case(
        "complete pending pending pending: pending",
        [*sent("sft", "rm"), Event("resumed", 0.0)],
        {"sft": complete("sft"), "rm": tried("rm1", outcome="error")},
        chain_alive=True,
    ),
    "without Slurm, what was cancelled is pending once the chain goes on": Case(
        "pending pending pending pending: pending",
        [
            *sent("sft"),
            Event("cancelled", 0.0),
            Event("cancelled", 0.0, "sft", "sft1"),
            Event("resumed", 0.0),
        ],
        chain_alive=True,
    ),
    "without Slurm, what failed since the chain goes on has failed": Case(
        "failed blocked blocked blocked: failed",
        [*sent("sft"), Event("resumed", 0.0), *sent("sft", round=2)],
        {"sft": tried("sft2", outcome="error", ended=2.0, exit_code=1)},
        chain_alive=True,
        settled=True,
    ),
}


def folded(case: Case) -> RunState:
    events = tuple(replace(event, number=n) for n, event in enumerate(case.events, 1))
    records = {stage: case.records.get(stage, NOTHING) for stage in STAGES}
    return fold(RUN, ON_SLURM, events, records, View(case.queue, case.chain_alive))


@pytest.mark.parametrize("name", CASES)
def test_a_run_stands_as_its_records_and_the_queue_say(name: str) -> None:
    case = CASES[name]
    state = folded(case)
    assert f"{' '.join(s.state for s in state.stages)}: {state.state}" == case.expected
    assert state.settled == case.settled
    if case.reason is not None:
        stage, words = case.reason
        assert next(s.reason for s in state.stages if s.name == stage) == words


def test_a_failed_stage_tells_its_class_and_what_comes_of_it() -> None:
    lost = folded(CASES["a job that died without a word"]).stages[0]
    assert (lost.failed, lost.answer) == ("node", "requeue")
    erred = folded(CASES["the receipt's first failure is what is told"]).stages[0]
    assert (erred.failed, erred.answer) == ("program", "end")


@pytest.mark.parametrize("what", ["interrupted", "refused", "cancelled", "dropped", "resubmitted"])
def test_the_next_job_of_a_stage_is_on_the_rung_that_its_attempts_came_to(what: str) -> None:
    """Whatever became of the submission in between: memory that did not do will not do later."""
    intent = Event("intent", 0.0, "sft", "sft2")
    events = {
        "interrupted": [intent],
        "refused": [intent, Event("refused", 0.0, "sft", "sft2")],
        "cancelled": [*sent("sft", round=2), Event("cancelled", 0.0, "sft", "sft2")],
        "dropped": [*sent("sft", round=2), Event("dropped", 0.0, "sft", "sft2")],
        "resubmitted": sent("sft", round=2),
    }[what]
    climbed = tried("sft1", outcome="error", failed="out of memory", answer="rung", rung=2)
    assert folded(Case("", [*sent("sft"), *events], {"sft": climbed})).stages[0].rung == 3


def test_a_silent_controller_is_no_failure_but_what_was_found_before_stays() -> None:
    found = Event("failed", 0.0, "rm", "rm1", detail="NODE_FAIL", failure="node")
    case = Case("", [*sent("sft", "rm"), found], {"sft": tried("sft1")}, queue=None)
    assert [stage.state for stage in folded(case).stages[:2]] == ["unknown", "failed"]


def test_a_stage_that_is_to_be_run_again_is_not_complete() -> None:
    again = [*sent(*STAGES), *(Event("again", 0.0, stage) for stage in ("ppo", "eval"))]
    case = Case("", again, {stage: complete(stage) for stage in STAGES})
    assert [s.state for s in folded(case).stages] == ["complete", "complete", "absent", "absent"]
    cleared = [*again, *(Event("cleared", 0.0, stage) for stage in ("ppo", "eval"))]
    rerun = [*cleared, *sent("ppo", "eval", round=2)]
    case = Case("", rerun, {stage: complete(stage) for stage in STAGES})
    assert [s.state for s in folded(case).stages] == ["complete"] * 4


def test_what_was_taken_out_of_the_queue_is_blocked_with_the_reason() -> None:
    dropped = Event("dropped", 0.0, "rm", "rm1", detail="stage sft did not finish (user)")
    failed = {"sft": tried("sft1", outcome="error", failed="user", answer="end", ended=2.0)}
    stage = folded(Case("", [*sent("sft", "rm"), dropped], failed)).stages[1]
    assert (stage.state, stage.reason, stage.queued) == (
        "blocked", "stage sft did not finish (user)", False,
    )  # fmt: skip


def test_a_running_stage_tells_how_far_it_is_and_another_does_not() -> None:
    state = folded(CASES["the first runs and the rest waits"])
    assert state.stages[0].progress == reached("sft1")
    assert state.stages[0].job_id == "41" and state.stages[0].attempts == 1
    assert state.stages[1].progress is None


def test_what_an_older_submission_reached_is_not_how_far_the_newest_is() -> None:
    case = CASES["the first runs and the rest waits"]
    state = folded(replace(case, records={"sft": tried("sft0")}))
    assert state.stages[0].state == "running"
    assert state.stages[0].progress is None


def test_a_stage_that_a_given_model_stands_in_for_is_given() -> None:
    sft = ON_SLURM.stage("sft")
    given = replace(sft, stage=replace(sft.stage, use="/models/sft"))
    plan = replace(ON_SLURM, stages=(given, *ON_SLURM.stages[1:]))
    records = dict.fromkeys(STAGES, NOTHING)
    state = fold(RUN, plan, (), records, View({}))
    assert (state.stages[0].state, state.stages[0].reason) == ("given", "/models/sft")


@pytest.mark.parametrize(("job", "ending"), [("running", True), ("cancelled", False)])
def test_a_cancelled_stage_says_whether_its_job_still_ends(job: QueueState, ending: bool) -> None:
    cancelled = (*sent("sft"), Event("cancelled", 0.0, "sft", "sft1"))
    case = Case("", list(cancelled), queue=queued("sft", job, "COMPLETING"))
    stage = folded(case).stages[0]
    assert (stage.state, stage.ending) == ("cancelled", ending)
