"""How a run stands: its files and its jobs, looked at, kept, and put back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.plan.types import Plan
from launcher.records.paths import RunPaths
from launcher.run import folder
from tests.slurm.killed import Launcher

GONE_S = 90


@dataclass(frozen=True)
class Job:
    """One that waits or runs."""

    stage: str
    token: str
    state: str
    waits: str
    """On which others, as `scontrol update dependency=` takes it."""

    @property
    def needs(self) -> set[str]:
        """Ids of the jobs whose good end it waits for."""
        return set(re.findall(r"afterok:(\d+)", self.waits))


class Place:
    """A folder with the runs of one user, who alone uses the cluster."""

    def __init__(self, home: Path, slurm_conf: str) -> None:
        self.home, self.runs = home, home / "runs"
        self.env = {
            **os.environ,
            "SLURM_CONF": slurm_conf,
            "LAUNCHER_CLUSTER": "dev",
            "LAUNCHER_RUNS": str(self.runs),
        }
        # For what is looked at from within this process.
        os.environ["SLURM_CONF"] = slurm_conf
        self.launcher = Launcher(home, self.env)

    @property
    def run(self) -> RunPaths:
        """The one run there is."""
        (found,) = folder.every(self.runs)
        return found

    @property
    def plan(self) -> Plan:
        return folder.load_plan(self.run)

    def slurm(self, *words: str) -> str:
        return subprocess.run(
            words, env=self.env, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    def take_jobs(self, *, start: bool) -> None:
        """Whether the cluster starts jobs; what is queued can be counted where it does not."""
        state = ("state=resume",) if start else ("state=drain", "reason=counting")
        shown = self.slurm("sinfo", "--noheader", "-N", "--format=%N %T").splitlines()
        for name, now in sorted({(*line.split(),) for line in shown}):
            if start == now.startswith("drain"):
                self.slurm("scontrol", "update", f"nodename={name}", *state)

    def jobs(self) -> dict[str, Job]:
        """Id → job, of all that wait or run."""
        found = {}
        for line in self.slurm("squeue", "--noheader", "--format=%A|%T|%E|%k").splitlines():
            job_id, state, waits, tag = line.split("|")
            _, _, stage, token = tag.split(":")
            waits = "" if waits == "(null)" else re.sub(r"\(\w+\)", "", waits)
            found[job_id] = Job(stage, token, state, waits)
        return found

    def cancel(self, *jobs: str) -> None:
        """Take jobs out of the queue and return when they are."""
        if jobs:
            self.slurm("scancel", *jobs)
        self.until(lambda: not set(jobs) & set(self.jobs()), "jobs to be gone")

    def clear(self) -> None:
        """No job, and no run."""
        self.cancel(*self.jobs())
        shutil.rmtree(self.runs, ignore_errors=True)

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = GONE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {what}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Standing:
    """Of a place: its files, beside it, and its jobs."""

    place: Place
    files: Path
    jobs: Mapping[str, Job]

    @classmethod
    def of(cls, place: Place, name: str) -> Standing:
        """Keep how `place` stands."""
        kept = place.home / f"kept-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        if place.runs.is_dir():
            shutil.copytree(place.runs, kept, symlinks=True)
        return cls(place, kept, place.jobs())

    def put_back(self) -> bool:
        """Let the place stand so again. False: a job is gone for good."""
        now = self.place.jobs()
        self.place.cancel(*(now.keys() - self.jobs.keys()))
        if not self.jobs.keys() <= now.keys():
            return False
        shutil.rmtree(self.place.runs, ignore_errors=True)
        if self.files.is_dir():
            # No file of a run is written to once it has its name, so that links serve.
            shutil.copytree(self.files, self.place.runs, symlinks=True, copy_function=os.link)
        for job_id, job in self.jobs.items():
            if now[job_id].waits != job.waits:
                words = ("scontrol", "update", f"jobid={job_id}", f"dependency={job.waits}")
                try:
                    self.place.slurm(*words)
                except subprocess.CalledProcessError:
                    return False
        return True

    def stage_files(self, stage: str) -> dict[Path, bytes]:
        """What the stage had left by then, but for its logs: path within its folder → content."""
        if not self.files.is_dir():
            return {}
        return left_in(RunPaths(self.files / self.place.run.root.name).stage(stage).root)


def left_in(stage: Path) -> dict[Path, bytes]:
    """What lies in a stage's folder but its logs, and what was put aside."""
    return {
        path.relative_to(stage): path.read_bytes()
        for path in sorted(stage.rglob("*"))
        if path.is_file() and path.relative_to(stage).parts[0] != "logs"
        and not path.relative_to(stage).parts[0].startswith("old-")
    }  # fmt: skip
