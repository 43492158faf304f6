"""Faults that hit a chain wherever it is, for a soak: each says what it did, or that it missed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import Missed
from tests.faults.kinds.nodes import power_off
from tests.faults.processes import Process
from tests.faults.site import until

Strike = Callable[["Target"], str]
"""Lets one fault hit; returns the proof. Raises Missed."""


@dataclass(frozen=True)
class Target:
    """The stage of a chain that runs now."""

    case: Case
    stage: str

    def trainer(self) -> Process:
        found = processes.of_run(self.case.root.root, processes.TRAINER)
        return self._own(found)

    def supervisor(self) -> Process:
        return self._own(processes.of_run(self.case.root.root, processes.SUPERVISOR))

    def _own(self, found: list[Process]) -> Process:
        mine = [each for each in found if each.stage == self.stage]
        if not mine:
            raise Missed(f"no process of {self.stage}")
        return mine[0]

    def job(self) -> str:
        return self.case.job(self.stage)

    def node(self) -> str:
        shown = self.case.show(self.job())
        name = shown.get("NodeList", "")
        if shown.get("JobState") != "RUNNING" or name not in self.case.site.daemons():
            raise Missed(f"job {self.job()} is not on a node")
        return name


def trainer_killed(at: Target) -> str:
    victim = at.trainer()
    processes.kill(victim)
    return f"trainer {victim.pid} killed"


def supervisor_killed(at: Target) -> str:
    victim = at.supervisor()
    processes.kill(victim)
    return f"supervisor {victim.pid} killed"


def warned(at: Target) -> str:
    job, victim = at.job(), at.trainer()
    at.case.site.slurm("scancel", "--signal=USR2", job)
    until(lambda: not victim.alive, "the trainer to stop", 120)
    return f"job {job} sent USR2, trainer {victim.pid} stopped"


def requeued(at: Target) -> str:
    job, before = at.job(), at.case.restarts(at.job())
    victim = at.trainer()
    at.case.site.slurm("scontrol", "requeue", job)
    until(lambda: at.case.restarts(job) > before or not victim.alive, "the requeue", 60)
    return f"job {job} requeued"


def damaged(at: Target) -> str:
    """The trainer dies, and the newest of at least two checkpoints is no longer as it was."""
    case = at.case
    victim = at.trainer()
    found = sorted(
        (p for p in case.root.stage(at.stage).checkpoints.glob("checkpoint-*/COMMIT.json")
         if ".bad" not in p.parent.name),
        key=lambda p: int(p.parent.name.removeprefix("checkpoint-")),
    )  # fmt: skip
    if len(found) < 2:
        raise Missed("there are not two checkpoints")
    processes.kill(victim)
    files = [p for p in sorted(found[-1].parent.iterdir()) if p.is_file() and p.stat().st_size]
    chosen = case.rng.choice(files)
    content = bytearray(chosen.read_bytes())
    content[case.rng.randrange(len(content))] ^= 1 << case.rng.randrange(8)
    chosen.write_bytes(bytes(content))
    return f"trainer {victim.pid} killed, {chosen.parent.name}/{chosen.name} damaged"


def controller_killed(at: Target) -> str:
    pid = at.case.site.daemon("kill", "slurmctld")
    time.sleep(at.case.rng.uniform(0, 8))
    at.case.site.daemon("start", "slurmctld")
    until(at.case.site.answers, "the controller answers", 60)
    return f"slurmctld {pid} killed"


def daemon_killed(at: Target) -> str:
    name = at.node()
    pid = at.case.site.daemon("kill", name)
    time.sleep(at.case.rng.uniform(0, 6))
    at.case.site.daemon("start", name)
    return f"slurmd {pid} of {name} killed and started"


def node_lost(at: Target) -> str:
    name, job = at.node(), at.job()
    before = at.case.restarts(job)
    power_off(at.case, name)
    until(lambda: at.case.restarts(job) > before or "RUNNING" not in
          at.case.show(job).get("JobState", ""), "Slurm to see it", 120)  # fmt: skip
    at.case.site.daemon("start", name)
    return f"every process of {name} killed"


def halted(at: Target) -> str:
    """It ignores the signal, and is killed at its deadline."""
    victim, job = at.trainer(), at.job()
    processes.send(victim, signal.SIGSTOP)
    at.case.site.slurm("scancel", "--signal=USR2", job)
    until(lambda: not victim.alive, "the halted trainer to be killed", 600)
    return f"trainer {victim.pid} halted and warned"


STRIKES: Mapping[str, tuple[int, Strike]] = {
    "trainer killed": (30, trainer_killed),
    "warned": (25, warned),
    "requeued": (15, requeued),
    "checkpoint damaged": (10, damaged),
    "slurmctld killed": (6, controller_killed),
    "slurmd killed": (6, daemon_killed),
    "supervisor killed": (4, supervisor_killed),
    "node lost": (3, node_lost),
    "halted": (1, halted),
}
"""Name → how often of a hundred, and the strike."""
