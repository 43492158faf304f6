"""Kill a submission at each system call that changes something; the same command then ends with
exactly one chain.

    python -m tests.slurm.sweep SLURM_CONF FOLDER [POINTS [SEED]]

Without POINTS every call is a point. The launcher's modules are loaded once; each submission is a
fork of this process, killed by strace as it enters a call. What it had started, an sbatch, lives
on, as it would.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import launcher
from launcher.records import journal
from launcher.records.paths import RunPaths

CALLS = (
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,"
    "chmod,fchmod,fchmodat,fsync,fdatasync,write,pwrite64,sendfile,copy_file_range,ftruncate,"
    "truncate,clone,clone3,fork,vfork"
)
"""Files that are created are met at the first write to them, or its absence at their fsync."""
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "ppo.yaml"
STAGES = 4


@dataclass(frozen=True)
class Point:
    """One submission that was killed."""

    call: str
    nth: int
    """Of the calls of that name."""
    killed: bool
    """False: it was done before it came to that one."""
    wrong: str
    """What the same command did not put right; empty: exactly one chain."""


class Sweep:
    """Submissions to a cluster that starts no jobs, in a folder of their own."""

    def __init__(self, home: Path, slurm_conf: str) -> None:
        self._home = home
        self._env = {
            **os.environ,
            "SLURM_CONF": slurm_conf,
            "LAUNCHER_CLUSTER": "dev",
            "LAUNCHER_RUNS": str(home / "runs"),
        }
        _load()

    def calls(self) -> list[tuple[str, int]]:
        """The calls of a submission that nobody kills, each with its number among its like."""
        trace = self._home / "trace"
        pid = self._fork(traced=True)
        tracer = self._strace(pid, ["-o", str(trace), "-e", f"trace={CALLS}"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        tracer.wait()
        self._clear()
        seen: Counter[str] = Counter()
        found = []
        for name in re.findall(r"^(?:\d+ +)?(\w+)\(", trace.read_text(), re.MULTILINE):
            seen[name] += 1
            found.append((name, seen[name]))
        return found

    def kill_at(self, call: str, nth: int) -> Point:
        """Kill a submission as it enters its `nth` such call, then give the command again."""
        pid = self._fork(traced=True)
        inject = f"inject={call}:signal=SIGKILL:when={nth}"
        tracer = self._strace(pid, ["-o", "/dev/null", "-e", f"trace={call}", "-e", inject])
        status = os.waitpid(pid, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        tracer.wait()
        again = self._fork(traced=False)
        code = os.waitstatus_to_exitcode(os.waitpid(again, 0)[1])
        wrong = f"exit code {code}" if code else self._wrong()
        self._clear()
        return Point(call, nth, killed, wrong)

    def _fork(self, *, traced: bool) -> int:
        pid = os.fork()
        if pid:
            if traced:
                os.waitpid(pid, os.WUNTRACED)
            return pid
        try:
            os.environ.clear()
            os.environ.update(self._env)
            os.chdir(self._home)
            out = os.open(self._home / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.argv = ["launcher", "submit", str(RECIPE), "--yes"]
            if traced:
                os.kill(os.getpid(), signal.SIGSTOP)
            from launcher.cli.main import main

            main()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(99)

    def _strace(self, pid: int, words: list[str]) -> subprocess.Popen[bytes]:
        """Let a process that stopped itself go on under strace."""
        tracer = subprocess.Popen(["strace", "-qq", "-p", str(pid), *words])
        deadline = time.monotonic() + 30
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise RuntimeError("strace cannot trace here")
            time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        return tracer

    def _slurm(self, *words: str) -> str:
        return subprocess.run(
            words, env=self._env, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _wrong(self) -> str:
        runs = [path for path in (self._home / "runs").iterdir() if path.name[0] != "."]
        if len(runs) != 1:
            return f"{len(runs)} runs"
        known = journal.submissions(journal.read(RunPaths(runs[0]).journal))
        meant = Counter(f"launcher:{runs[0].name}:{s.stage}:{s.token}" for s in known.values())
        queued = Counter(self._slurm("squeue", "--noheader", "--format=%k").split())
        if len(meant) != STAGES or queued != meant:
            return f"the journal means {sorted(meant)}, queued are {sorted(queued.elements())}"
        if any(each.job_id is None for each in known.values()):
            return "an id is not in the journal"
        return ""

    def _clear(self) -> None:
        self._slurm("scancel", f"--user={os.environ.get('USER', 'root')}")
        shutil.rmtree(self._home / "runs", ignore_errors=True)


def _load() -> None:
    """Import what a submission does, so that a fork of this process need not."""
    importlib.import_module("submitit")
    for found in pkgutil.walk_packages(launcher.__path__, "launcher."):
        if not found.name.startswith(("launcher.worker", "launcher.share")):
            importlib.import_module(found.name)


def sweep(home: Path, slurm_conf: str, points: int | None, seed: int) -> list[Point]:
    """The points that were met: so many, chosen by `seed`, or all."""
    target = Sweep(home, slurm_conf)
    calls = target.calls()
    # In any order, so that a sweep which is ended early has been everywhere.
    chosen = random.Random(seed).sample(calls, len(calls) if points is None else points)
    found: list[Point] = []
    for call in chosen:
        found.append(target.kill_at(*call))
        if found[-1].wrong or len(found) % 20 == 0:
            print(f"{len(found)} of {len(chosen)}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def main(slurm_conf: str, home: str, points: str = "", seed: str = "0") -> int:
    met = sweep(Path(home), slurm_conf, int(points) if points else None, int(seed))
    report: dict[str, Any] = {
        "points": len(met),
        "killed": sum(point.killed for point in met),
        "wrong": [vars(point) for point in met if point.wrong],
    }
    print(json.dumps(report, indent=1))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
