"""A Slurm of its own for tests. Where it cannot be had the tests fail."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parents[2] / "slurm" / "dev"
# Between a preempted job's signal and its end. Slurm is late by some seconds.
GRACE_SECONDS = 10


@dataclass(frozen=True)
class DevCluster:
    """A running development cluster."""

    state: Path
    env: dict[str, str]
    """The environment of a process that shall use it."""

    def run(self, *argv: str | Path, timeout: float = 60) -> str:
        """What a command prints to stdout; fails the test where it does not exit with 0."""
        done = subprocess.run(
            argv, env=self.env, cwd=self.state, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode != 0:
            pytest.fail(f"{shlex.join(map(str, argv))} exited {done.returncode}: {done.stderr}")
        return done.stdout

    def sinfo(self, fmt: str = "%P %N %G %T") -> list[str]:
        return self.run("sinfo", "--noheader", f"--format={fmt}").splitlines()

    def squeue(self, fmt: str = "%A %T") -> list[str]:
        return self.run("squeue", "--noheader", f"--format={fmt}").splitlines()

    def sbatch(self, script: str, *options: str) -> str:
        """Submit `script`, bash text; returns the job id. Output goes to `output(job)`."""
        path = self.state / f"script-{time.monotonic_ns()}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        pattern = str(self.state / "job-%j.out")
        return self.run(
            "sbatch", "--parsable", "--open-mode=append", f"--output={pattern}", *options, path
        ).strip()

    def output(self, job: str) -> str:
        path = self.state / f"job-{job}.out"
        return path.read_text() if path.exists() else ""

    def show(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`; those whose value holds a space are cut."""
        text = self.run("scontrol", "show", "job", "--oneliner", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait_for(self, job: str, state: str, timeout: float = 60) -> None:
        """Return once `job` is in `state`, such as COMPLETED."""
        wait_until(lambda: self.show(job)["JobState"] == state, f"{job} to be {state}", timeout)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Return once `condition` holds; fail the test when it does not in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for {what}")
        time.sleep(0.2)


def start(state: Path, *options: str) -> DevCluster:
    """Start a cluster in `state`; the caller ends it with `stop`."""
    command: list[str | Path] = [
        DEV / "up",
        "--state",
        state,
        "--grace",
        str(GRACE_SECONDS),
        *options,
    ]
    started = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if started.returncode != 0:
        pytest.fail(f"these tests need a real Slurm.\n{started.stderr}", pytrace=False)
    name, value = shlex.split(started.stdout)[1].split("=", 1)
    return DevCluster(state, {**os.environ, name: value})


def stop(state: Path) -> None:
    subprocess.run([DEV / "down", "--state", state], check=True, timeout=120)
