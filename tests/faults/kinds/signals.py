"""Signals: to the whole job, to one rank, in every phase; and a trainer that does not hear them."""

from __future__ import annotations

import re
import signal
import time

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.scenes import EVALUATE, EVALUATED, GRPO, PPO, SAVE, SFT, TWO

HANG = "60s"
"""How long a trainer may be silent amid its steps, in place of ten minutes."""


def warn(case: Case) -> None:
    """What `--signal=USR2@seconds` sends to every task of the job."""
    case.site.slurm("scancel", "--signal=USR2", case.job())


def until_back(case: Case, restarts: int) -> None:
    """Return once the job runs again under its id; proves that it was put back.

    Raises Missed where the signal came so late that the stage was done first, Lost where it ran to
    its end though the signal came in the first half of its steps.
    """
    job, step = case.job(), case.step()
    case.until(
        lambda: case.restarts(job) > restarts or case.complete(case.scene.target),
        f"{job} to start again",
    )
    if (count := case.restarts(job)) <= restarts:
        words = f"the stage ran to its end, told to stop at step {step} of {case.scene.steps}"
        raise Missed(words) if step > case.scene.steps / 2 else Lost(words)
    case.hit(f"job {job} started again, restarts {count}")


@fault("warned of the time limit at a step", SFT, redo=1)
def time_limit(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    warn(case)
    until_back(case, 0)


@fault("warned of the time limit, two ranks", TWO, redo=1)
def time_limit_two(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    warn(case)
    until_back(case, 0)


@fault("warned of the time limit amid PPO", PPO, redo=1)
def time_limit_ppo(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    time.sleep(case.rng.uniform(0, 1))
    warn(case)
    until_back(case, 0)


@fault("five time limits in a row", SFT, redo=1)
def five(case: Case) -> None:
    case.submit()
    last = 0
    for number in range(5):
        last = case.until_step(last + case.rng.randint(1, 3))
        warn(case)
        until_back(case, number)


@fault("a real time limit of Slurm", SFT, redo=1, patience_s=900)
def real(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step())
    job, trainer = case.job(), case.trainer()
    # It would be done before the limit: it stands still until Slurm's warning has come to it, which
    # sets it going again.
    processes.send(trainer, signal.SIGSTOP)
    # At least a minute from now; Slurm warns when less than the plan's lead is left.
    *_, hours, minutes, _ = [int(n) for n in re.split("[-:]", f"0:{case.show(job)['RunTime']}")]
    limit = hours * 60 + minutes + 2
    case.site.slurm("scontrol", "update", f"jobid={job}", f"timelimit={limit}")
    case.until(lambda: not trainer.alive, "the warning", 240)
    case.site.slurm("scontrol", "update", f"jobid={job}", "timelimit=15")
    until_back(case, 0)
    ended = case.attempts()[0]["outcome"]
    if ended != "stopped":
        raise Lost(f"the first attempt was {ended}, at step {step}")
    case.hit(f"Slurm warned job {job} at step {step}")


@fault("the signal reaches one rank only", TWO, redo=1, quick=True)
def one_rank(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    rank = case.rng.randrange(2)
    told = [s for s in case.supervisors() if s.rank == rank]
    if not told:
        raise Missed(f"no supervisor of rank {rank}")
    processes.send(told[0], signal.SIGUSR2)
    until_back(case, 0)


@fault("SIGTERM to one trainer only", TWO, redo=1)
def one_trainer(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    processes.send(case.trainer(case.rng.randrange(2)), signal.SIGTERM)
    until_back(case, 0)


@fault("warned while it loads", SFT, redo=0)
def loading(case: Case) -> None:
    case.submit()
    case.until_trainer()
    time.sleep(case.rng.uniform(0, 5))
    if case.step() > 0:
        raise Missed("it was training already")
    warn(case)
    until_back(case, 0)


@fault("warned while it evaluates amid training", EVALUATED, redo=1)
def evaluating(case: Case) -> None:
    # The evaluation follows the step whose figures are logged before it.
    step = case.rng.choice([4, 8, 12, 16, 20])
    case.submit()
    case.until_step(step)
    warn(case)
    if case.step() > step:
        raise Missed("the evaluation was over")
    until_back(case, 0)


@fault("an evaluation is warned while it generates", EVALUATE, redo=0)
def generating(case: Case) -> None:
    case.submit()
    case.until(lambda: case.phase() not in ("", "load") or case.complete(), "the evaluation")
    time.sleep(case.rng.uniform(0, 1))
    phase = case.phase()
    warn(case)
    if case.complete():
        raise Missed("it was over")
    case.proofs.append(f"in phase {phase}")
    until_back(case, 0)


@fault("warned amid the rewards of a rollout", GRPO, redo=1)
def rollout(case: Case) -> None:
    # The function of the recipe itself, which each rollout calls once, tells its supervisor.
    mark, nth = case.mark, case.rng.randint(2, case.scene.steps - 3)
    case.rewards(f"""
import os, signal
_calls = 0
_plain = early
def early(completions, **columns):
    global _calls
    _calls += 1
    if _calls == {nth}:
        try:
            os.close(os.open({str(mark) + ".1"!r}, os.O_CREAT | os.O_EXCL))
            os.kill(os.getppid(), signal.SIGUSR2)
        except FileExistsError:
            pass
    return _plain(completions, **columns)
""")
    case.submit()
    case.until_marked()
    until_back(case, 0)


@fault("warned while a checkpoint is written", SFT, redo=0)
def saving(case: Case) -> None:
    case.hook(
        events=["open", "os.rename", "os.mkdir"],
        path=r"/\.writing|/checkpoints/checkpoint-",
        nth=case.rng.randint(1, 30),
        do="signal",
    )
    case.submit()
    mark = case.until_marked()[0]
    case.proofs.append(f"signalled at {mark['event']} of {mark['paths'][-1:]}")
    until_back(case, 0)


@fault("a trainer that ignores the signal", SFT, patience_s=900)
def ignores(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step(SAVE))
    victim = case.trainer()
    processes.send(victim, signal.SIGSTOP)
    warn(case)
    case.until(lambda: not victim.alive, "the halted trainer to be killed", 600)
    case.hit(f"trainer {victim.pid}, halted, was killed at step {case.step()}")


@fault("a trainer that hangs", SFT)
def hangs(case: Case) -> None:
    # Amid a step: what writes a checkpoint may be silent for an hour.
    case.hook(events=["open"], path=r"metrics\.jsonl", nth=case.draw_step(2), do="stop")
    case.submit({"resources": {"hang_timeout": HANG}})
    case.until_marked()
    victim = case.trainer()
    began = time.monotonic()
    while victim.alive:
        time.sleep(0.5)
        if time.monotonic() - began > 300:
            raise Lost("the halted trainer stands still after five minutes")
    case.hit(f"trainer {victim.pid}, halted, was killed {time.monotonic() - began:.0f} s later")
