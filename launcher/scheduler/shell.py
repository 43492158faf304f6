"""The one file that starts processes. Always a list of words: no shell reads any of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from launcher.errors import LauncherError, SchedulerUnavailable

# Slurm's own words for a controller that may answer later, and for none that it knows of.
_SILENT = (
    "unable to contact slurm controller",
    "timed out",
    "connection refused",
    "zero bytes were transmitted",
    "resource temporarily unavailable",
)
_UNKNOWN = "could not establish a configuration source"
_AGAIN = "try the same command again in a minute"
# What people set for their own use of Slurm's commands: sbatch puts it before what its script says,
# and the others show less for it.
_THEIRS = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SINFO_", "SACCT_", "SACCTMGR_")
# Of Slurm's own, all but these are of the job that a command runs in, and sbatch hands them on to
# the next one whatever it is told to export.
_ANYWHERE = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET"}


class CommandFailed(LauncherError):
    """A program ended with an error. `message` holds its own words."""


def run(argv: Sequence[str], timeout: float = 30, *, both: bool = False) -> str:
    """What `argv` prints on standard output; with `both`, on standard error after it.

    Raises SchedulerUnavailable when the program is missing, silent for `timeout` seconds, or says
    that the controller does not answer; CommandFailed when it ends with another error.
    """
    name = argv[0]
    without = hidden()
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if key not in without},
        )
    except FileNotFoundError as error:
        raise SchedulerUnavailable(
            f"{name} is not on this machine",
            hint="run on a login node of the cluster, or leave out --cluster to run here",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnavailable(
            f"{name} did not answer within {timeout:g} s", hint=_AGAIN
        ) from error
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise unavailable(words) or CommandFailed(said(words, name))
    return done.stdout + done.stderr if both else done.stdout


def hidden() -> list[str]:
    """The variables of this process that Slurm's commands do not get to see, sorted."""
    of_a_job = {name for name in os.environ if name.startswith("SLURM_")} - _ANYWHERE
    return sorted({name for name in os.environ if name.startswith(_THEIRS)} | of_a_job)


def works_on(beginning: str) -> bool:
    """Whether a process of this machine was given a word that begins so."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # Many end while one looks.
        with suppress(OSError):
            words = os.fsdecode(path.read_bytes()).split("\0")
            if any(word.startswith(beginning) for word in words):
                return True
    return False


def converse(argv: Sequence[str], text: str, environment: Mapping[str, str] | None = None) -> str:
    """What `argv` prints on standard output when given `text` on standard input.

    It runs in the root folder: Python would import what lies where the user stands.

    Raises LauncherError where the program is missing, CommandFailed where it ends with an error:
    the last that it named.
    """
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, cwd="/", env=environment
        )
    except OSError as error:
        raise LauncherError(f"{argv[0]} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        raise CommandFailed(_last_error(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def _last_error(words: str) -> str:
    """The last error that a program of Python's, ours or not, names on standard error. Pure."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"error: |([\w.]+\.)?\w*(Error|Exception)\b", line)]
    last: str = (named or lines or [""])[-1]
    return last.removeprefix("error: ")


def unavailable(words: str) -> SchedulerUnavailable | None:
    """The error that `words` of a Slurm command amount to where Slurm does not answer, else None.

    Pure.
    """
    lowered = words.lower()
    if _UNKNOWN in lowered:
        return SchedulerUnavailable(
            "Slurm is installed here and knows of no cluster (no slurm.conf)",
            hint="run on a login node of the cluster; `--cluster local` plans for this machine",
        )
    if any(sign in lowered for sign in _SILENT):
        return SchedulerUnavailable(f"Slurm does not answer: {said(words)}", hint=_AGAIN)
    return None


def said(words: str, name: str = "") -> str:
    """The last complaint in the output of a Slurm command, in one line. Pure."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    complaints = [line for line in lines if re.match(r"\w+: (error|fatal): ", line)]
    line = (complaints or lines or ["no words"])[-1]
    return line if not name or line.startswith(f"{name}: ") else f"{name}: {line}"


def detach(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, so that it outlives the terminal.

    Its output is appended to `log`, and it runs in the folder of that: Python would import what
    lies where the user stands.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(env),
            cwd=log.parent,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
