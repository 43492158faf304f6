"""A stage that cannot go on from its checkpoints is refused before it is queued."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cli.prepare import prepare
from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.records import attempts, journal
from launcher.records.checkpoints import SCHEMA_VERSION, Commit, path_of
from launcher.records.commits import begin, commit
from launcher.records.paths import RunPaths
from launcher.run import folder, look, state, why
from launcher.run.again import announce
from launcher.run.chain import Wish, bring
from launcher.scheduler.jobs import JobRequest, QueuedJob
from tests.unit.command import ROOT, launcher
from tests.unit.planning import POOR, plan, recipe, stage
from tests.unit.running import ON_SLURM

ADVANCE, SUBMIT, RESUME = Wish(person=False), Wish(), Wish(resume=True)


class Slurm:
    """A queue that takes every job, and in which none is left."""

    def __init__(self) -> None:
        self.sent: list[JobRequest] = []

    def submit(self, request: JobRequest) -> str:
        self.sent.append(request)
        return str(len(self.sent))

    def queue(self) -> Mapping[str, QueuedJob]:
        return {
            job.tag: QueuedJob(
                str(number), job.tag, "pending", "PENDING", waits_for=job.dependencies
            )
            for number, job in enumerate(self.sent, start=1)
        }

    def cancel(self, jobs: Sequence[QueuedJob]) -> None:
        assert not jobs

    def depend(
        self, job: QueuedJob, dependencies: Sequence[str], after: Sequence[str] = ()
    ) -> bool:
        raise AssertionError(job)

    def sending(self, logs: Path) -> bool:
        return False

    def release(self, job: QueuedJob) -> bool:
        raise AssertionError(job)

    def ending(self, job_id: str, restarts: int) -> str:
        raise AssertionError(job_id)


def leave(run: RunPaths, processes: int, zero_stage: int = 0, step: int = 6) -> None:
    """A checkpoint of the first stage, as so many processes commit it."""
    folder = run.stage("sft").checkpoints
    staged = path_of(begin(folder), step)
    staged.mkdir()
    commit(staged, Commit(SCHEMA_VERSION, step, processes, zero_stage, "none", time.time(), ()))


def preempted(run: RunPaths, rung: int = 0, answer: str = "requeue") -> None:
    """A submission of the first stage whose job is over."""
    for kind in ("intent", "submitted"):
        event = journal.Event(kind, time.time(), "sft", "f00d", "7", rung=rung)
        journal.append(run.journal, event)
    written = attempts.start(
        run.stage("sft").attempts, attempts.Attempt(0, "f00d", "7", "n1", 1, time.time(), rung=rung)
    )
    failed = "out of memory" if answer == "rung" else "preempted"
    over = replace(written, ended=time.time(), outcome="stopped", failed=failed, answer=answer)  # type: ignore[arg-type]
    attempts.finish(run.stage("sft").attempts, over)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    made, _ = folder.create(tmp_path / "runs", ON_SLURM, {"name": "chain"}, new=False)
    preempted(made)
    return made


@pytest.mark.parametrize("wish", [SUBMIT, RESUME, ADVANCE], ids=["submit", "resume", "advance"])
def test_another_number_of_processes_is_refused_before_anything_is_queued(
    run: RunPaths, wish: Wish
) -> None:
    own = ON_SLURM.stage("sft")
    leave(run, own.allocation.processes + 1, own.zero_stage)
    before, slurm = journal.last(run.journal), Slurm()
    with pytest.raises(UsageError) as refused:
        bring(run, ON_SLURM, slurm, wish)
    assert not slurm.sent and journal.last(run.journal) == before
    name = run.root.name
    assert refused.value.message.startswith(f"stage sft of {name}: checkpoint-6 was written by ")
    hint = refused.value.hint or ""
    assert str(run.plan) in hint and f"launcher resume {name} --from sft" in hint


def test_another_zero_stage_is_refused_too_and_what_fits_is_sent(run: RunPaths) -> None:
    own = ON_SLURM.stage("sft")
    leave(run, own.allocation.processes, own.zero_stage + 1)
    with pytest.raises(UsageError, match="is of ZeRO"):
        bring(run, ON_SLURM, Slurm(), SUBMIT)
    # The newest counts.
    leave(run, own.allocation.processes, own.zero_stage, step=8)
    slurm = Slurm()
    assert {each.action for each in bring(run, ON_SLURM, slurm, ADVANCE)} == {"submitted"}
    assert [job.stage for job in slurm.sent] == ["sft", "rm", "ppo", "eval"]


def test_from_the_stage_on_it_is_sent_and_its_checkpoints_are_kept_aside(run: RunPaths) -> None:
    leave(run, ON_SLURM.stage("sft").allocation.processes + 1)
    announce(run, ON_SLURM, state.read(run, ON_SLURM, state.View(queue={})), "sft")
    slurm = Slurm()
    bring(run, ON_SLURM, slurm, RESUME)
    assert slurm.sent[0].stage == "sft"
    assert not run.stage("sft").checkpoints.exists()
    assert list(run.stage("sft").root.glob("old-*/checkpoints/checkpoint-6"))


@pytest.fixture
def growing(tmp_path: Path) -> tuple[RunPaths, Plan, int]:
    """A run of one stage, and the first rung of its ladder that has more GPUs."""
    made = plan(recipe(stage()), POOR)
    (own,) = made.stages
    sizes = [rung.allocation.processes > own.allocation.processes for rung in own.ladder]
    run, _ = folder.create(tmp_path / "runs", made, {"name": "chain"}, new=False)
    return run, made, 1 + sizes.index(True)


def test_a_rung_with_more_gpus_sets_checkpoints_aside_and_is_not_refused(
    growing: tuple[RunPaths, Plan, int],
) -> None:
    run, made, rung = growing
    own = made.stage("sft")
    preempted(run, rung - 1, answer="rung")
    leave(run, own.allocation.processes, own.zero_stage)
    slurm = Slurm()
    bring(run, made, slurm, ADVANCE)
    assert [job.allocation for job in slurm.sent] == [own.at(rung).allocation]
    # Once it has been on the rung, those that lie there must be its own.
    preempted(run, rung)
    with pytest.raises(UsageError, match="written by"):
        bring(run, made, Slurm(), ADVANCE)


def test_a_stage_that_is_run_again_begins_on_the_plan_as_it_stands(
    growing: tuple[RunPaths, Plan, int],
) -> None:
    """As its job finds it: no receipt speaks of memory any more."""
    run, made, rung = growing
    preempted(run, rung)
    announce(run, made, state.read(run, made, state.View(queue={})), "sft")
    slurm = Slurm()
    bring(run, made, slurm, RESUME)
    assert [job.allocation for job in slurm.sent] == [made.stage("sft").allocation]


def test_the_commands_of_a_machine_without_slurm_refuse_it_and_why_says_so(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    tiny = ROOT / "recipes" / "tiny" / "sft.yaml"
    made = prepare(str(tiny), (), "local", runs)
    run, _ = folder.create(runs, made.plan, made.recipe, new=False)
    preempted(run)
    leave(run, 2)
    name, at = run.root.name, ("--runs", runs)
    for words in (
        ("submit", tiny, "--cluster", "local", "--yes"),
        ("resume", name),
        ("resume", name, "--accept-change"),
        ("advance", name),
    ):
        refused = launcher(*words, *at, folder=tmp_path, code=2)
        assert "checkpoint-6 was written by 2 processes, the plan has 1" in refused.err
        assert f"--from {made.plan.stages[0].name}" in refused.err
    (told,) = why.reasons(run, made.plan, look.look(run, made.plan))
    assert "since then checkpoint-6 was written by 2 processes" in told.why
    assert not run.local_log.exists()
