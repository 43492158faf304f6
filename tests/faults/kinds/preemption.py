"""Slurm takes the job's nodes for another, in the ways that its partitions are set up for."""

from __future__ import annotations

import signal

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import fault
from tests.faults.processes import Process
from tests.faults.scenes import PREEMPTED

TIMES = 10


def _take(case: Case) -> None:
    """Ask for all nodes with jobs of higher priority, which end soon, and wait until the trainer
    has been told; it would be done before."""
    with case.halted() as halted:
        for partition in ("a100", "h100"):
            words = ("--nodes=2", "--exclusive", "--time=1", "--mem=1000", "--wrap=sleep 1")
            case.site.slurm("sbatch", f"--partition={partition}", "--output=/dev/null", *words)
        case.until(lambda: all(map(_told, halted)), "the signal", 120)


def _told(trainer: Process) -> bool:
    return not trainer.alive or processes.waits(trainer, signal.SIGUSR2)


def _ten(case: Case) -> None:
    case.submit()
    job, last = case.job(), 0
    for number in range(TIMES):
        last = case.until_step(min(last + case.rng.randint(0, 3), case.scene.steps - 2))
        # The step may be one of the start before.
        case.until(lambda: bool(case.trainers()), "a trainer")
        _take(case)
        case.until(lambda n=number: case.restarts(job) > n, f"preemption {number + 1}")
        case.hit(f"preempted at step {last}, restarts {case.restarts(job)}")


@fault("preempted ten times, requeue", PREEMPTED, redo=1, points=1, patience_s=900)
def requeue(case: Case) -> None:
    _ten(case)


@fault("preempted ten times, requeue, no user signal", PREEMPTED, redo=1, points=1,
       cluster="no user signal", patience_s=900)  # fmt: skip
def requeue_without(case: Case) -> None:
    _ten(case)


@fault("preempted", PREEMPTED, redo=1)
def once(case: Case) -> None:
    case.submit()
    job = case.job()
    step = case.until_step(case.draw_step())
    _take(case)
    case.until(lambda: case.restarts(job) > 0, "the preemption")
    case.hit(f"preempted at step {step}, restarts {case.restarts(job)}")


def _cancelled(case: Case) -> None:
    """In this mode Slurm ends the job as a user would: only the next command can go on."""
    case.site.slurm("scontrol", "update", "partitionname=preempt", "preemptmode=cancel")
    try:
        case.submit()
        for _ in range(2):
            job = case.job()
            step = case.until_step(case.step() + case.rng.randint(1, 6))
            _take(case)
            case.until(lambda j=job: _over(case, j), "the preemption", 120)
            case.hit(f"job {job} preempted at step {step}, {case.show(job)['JobState']}")
            case.until_back_or_again()
    finally:
        case.site.slurm("scontrol", "update", "partitionname=preempt", "preemptmode=requeue")


def _over(case: Case, job: str) -> bool:
    shown = case.show(job)
    return shown.get("JobState") in ("PREEMPTED", "CANCELLED", None) or case.restarts(job) > 0


@fault("preempted, cancel", PREEMPTED, end="next command", redo=1)
def cancel(case: Case) -> None:
    _cancelled(case)


@fault("preempted, cancel, no user signal", PREEMPTED, end="next command", redo=1,
       cluster="no user signal")  # fmt: skip
def cancel_without(case: Case) -> None:
    _cancelled(case)
