"""A process of the stage is gone."""

from __future__ import annotations

import time

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import fault
from tests.faults.scenes import PPO, SFT, TWO


@fault("the trainer is killed at a step", SFT, quick=True)
def trainer(case: Case) -> None:
    case.submit()
    _kill_at(case, case.draw_step(), rank=0)


@fault("one of two ranks is killed at a step", TWO)
def rank(case: Case) -> None:
    case.submit()
    _kill_at(case, case.draw_step(), rank=case.rng.randrange(2))


@fault("the trainer of PPO is killed at a step", PPO)
def ppo(case: Case) -> None:
    case.submit()
    _kill_at(case, case.draw_step(), rank=0)


@fault("the trainer is killed while it loads", SFT)
def loading(case: Case) -> None:
    case.submit()
    victim = case.until_trainer()
    time.sleep(case.rng.uniform(0, 4))
    step = case.step()
    processes.kill(victim)
    case.hit(f"trainer {victim.pid} killed in phase {case.phase() or 'start'} at step {step}")


@fault("the supervisor is killed at a step", SFT, end="next command")
def supervisor(case: Case) -> None:
    case.submit()
    case.until_step(case.draw_step())
    victims = case.supervisors()
    processes.kill(victims[0])
    case.hit(f"supervisor {victims[0].pid} killed at step {case.step()}")
    case.until(lambda: not case.trainers(), "its trainer to be gone", 30)
    # The batch script's trap may act by itself; the same command does no harm then.
    case.until_back_or_again()


def _kill_at(case: Case, step: int, rank: int) -> None:
    case.until_step(step)
    victim = case.trainer(rank)
    processes.kill(victim)
    case.hit(f"trainer {victim.pid} of rank {rank} killed at step {case.step()}")
