"""A node's daemon, or the whole node, is gone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import Missed, fault
from tests.faults.scenes import SFT, SHORT, TWO


def _node(case: Case, job: str) -> str:
    """The node of a job that runs on one. Raises Missed."""
    name = case.show(job).get("NodeList", "")
    if name not in case.site.daemons():
        raise Missed(f"job {job} is on no node: {name}")
    return name


@fault("slurmd is killed and started again", SFT, cluster="own", end="next command", redo=1)
def restarted(case: Case) -> None:
    """Where Slurm starts the job anew while the node comes back, that start fails, and Slurm holds
    the job."""
    case.submit()
    step = case.until_step(case.draw_step())
    name = _node(case, case.job())
    with case.halted():
        pid = case.site.daemon("kill", name)
    case.hit(f"slurmd {pid} of {name} killed at step {step}")
    time.sleep(case.rng.uniform(0, 8))
    case.site.daemon("start", name)


@fault("slurmd is killed and stays away", SHORT, cluster="own", patience_s=900)
def killed(case: Case) -> None:
    """The job's processes live on, while Slurm gives the node up and starts the job elsewhere: the
    older start has to see that it is no longer the one."""
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    job = case.job()
    name = _node(case, job)
    with case.halted():
        pid = case.site.daemon("kill", name)
        case.hit(f"slurmd {pid} of {name} killed at step {step}")
        case.until(lambda: case.restarts(job) > 0, "the job to be put back", 180)
        case.until(lambda: len(case.attempts()) > 1, "the job to start again", 300)


@fault("a node is gone for good", SHORT, cluster="own", patience_s=600)
def gone(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step())
    job = case.job()
    name = _node(case, job)
    with case.halted():
        power_off(case, name)
    case.hit(f"every process of {name} killed at step {step}")
    case.until(lambda: case.restarts(job) > 0, "the job to be put back", 180)


@fault("one node of two is gone for good", TWO, cluster="own", patience_s=600)
def one_of_two(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step())
    job = case.job()
    # The other type's nodes take the job only where the plan's partition has them: it comes back.
    name = case.rng.choice(["a100-1", "a100-2"])
    with case.halted():
        power_off(case, name)
    case.hit(f"every process of {name} killed at step {step}")
    case.until(lambda: not case.trainers(), "the other rank to end", 180)
    case.until(lambda: "RUNNING" not in case.show(job).get("JobState", ""), "Slurm sees it", 120)
    case.site.daemon("start", name)


@fault("a node is drained", SHORT, cluster="own", redo=0)
def drained(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    name = _node(case, case.job())
    words = (f"nodename={name}", "state=drain", "reason=fault")
    case.site.slurm("scontrol", "update", *words)
    case.until(lambda: case.complete("rm"), "the next stage")
    used = {each["host"] for each in case.attempts("rm")}
    if used == {name}:
        raise Missed(f"the next stage ran on the drained {name}")
    case.hit(f"{name} drained at step {step}, the next stage ran on {', '.join(used)}")


def power_off(case: Case, name: str) -> None:
    """Kill slurmd, the steps' daemons and every process of a node, as a lost power supply would."""
    pid = case.site.daemon("halt", name)
    deadline = time.monotonic() + 20
    while pids := [p for p in processes.of_node(pid) if p != pid]:
        for each in pids:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise Missed(f"processes {pids} of {name} do not end")
        time.sleep(0.02)
    case.site.daemon("kill", name)
