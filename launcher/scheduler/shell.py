"""The one file that starts processes. Always a list of words: no shell reads any of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import LauncherError, SchedulerUnavailable

# Slurm's own words for a controller that may answer later.
_TRANSIENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
    "Resource temporarily unavailable",
)


class CommandFailed(LauncherError):
    """A program ended with an error. `message` holds its own words."""


def run(argv: Sequence[str], timeout: float = 30) -> str:
    """What `argv` prints on standard output.

    Raises SchedulerUnavailable when the program is missing, silent for `timeout` seconds, or says
    that the controller does not answer; CommandFailed when it ends with another error.
    """
    name = argv[0]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise SchedulerUnavailable(
            f"{name} is not on this machine",
            hint="run on a login node of the cluster, or leave out --cluster to run here",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnavailable(
            f"{name} did not answer within {timeout:g} s", hint="try again in a minute"
        ) from error
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        if any(sign in words for sign in _TRANSIENT):
            raise SchedulerUnavailable(f"{name}: {words}", hint="try again in a minute")
        raise CommandFailed(f"{name}: {words}")
    return done.stdout


def detach(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> int:
    """Start `argv` in a session of its own, so that it outlives the terminal. Returns its pid.

    Its output is appended to `log`.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(env),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return process.pid
