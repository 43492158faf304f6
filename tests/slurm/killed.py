"""The launcher as a fork of this process, which strace kills as it enters a system call.

The launcher's modules are loaded once. What a killed command had started, an sbatch, lives on, as
it would.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import launcher

STARTS = ("clone", "clone3", "fork", "vfork")
CALLS = (
    "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "fsync",
    "fdatasync", "write", "pwrite64", "sendfile", "copy_file_range", "ftruncate", "truncate",
    *STARTS,
)  # fmt: skip
"""Files that are created are met at the first write to them, or its absence at their fsync."""
_AFTER_START = "close"
"""The first call after a process was started: what changes something is at work then, elsewhere."""
_PATH = re.compile(r'"(/[^"]*)"|<((?:/|pipe)[^>]*)>')
_SHOWN = ["-y", "-s", "16"]


@dataclass(frozen=True)
class Call:
    """A system call of a command that nobody kills."""

    name: str
    nth: int
    """Of the calls of that name."""
    where: str
    """The files that it is about, or the program that is started or was started just before."""


class Launcher:
    """Commands of the launcher, each in a fork of this process."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._home, self._env = home, env
        _load()

    def run(self, *words: str) -> int:
        """The exit code of a command that nobody kills. What it says is in `said`."""
        return os.waitstatus_to_exitcode(os.waitpid(self._fork(words, traced=False), 0)[1])

    @property
    def said(self) -> str:
        """What the last command printed."""
        return (self._home / "out").read_text(errors="replace")

    def calls(self, *words: str) -> list[Call]:
        """Where a command can be killed: the calls that change something, in their order."""
        trace = self._home / "trace"
        pid = self._fork(words, traced=True)
        names = ",".join((*CALLS, _AFTER_START, "execve"))
        # A file for each process: `trace.PID`.
        tracer = self._strace(pid, ["-ff", "-o", str(trace), "-e", f"trace={names}"])
        status = os.waitpid(pid, 0)[1]
        tracer.wait()
        assert os.waitstatus_to_exitcode(status) == 0, self.said
        lines = Path(f"{trace}.{pid}").read_text().splitlines()
        found = self._found(lines)
        for path in self._home.glob("trace.*"):
            path.unlink()
        return found

    def kill(self, call: Call, *words: str) -> bool:
        """Kill a command as it enters `call`. False: it came to its end, or to another place."""
        trace = self._home / "trace"
        pid = self._fork(words, traced=True)
        names = ",".join({call.name, *(STARTS if call.name == _AFTER_START else ())})
        inject = f"inject={call.name}:signal=SIGKILL:when={call.nth}"
        tracer = self._strace(pid, ["-o", str(trace), "-e", f"trace={names}", "-e", inject])
        status = os.waitpid(pid, 0)[1]
        tracer.wait()
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return False
        lines = [line for line in trace.read_text().splitlines() if _name(line)]
        if call.name in STARTS:
            return _name(lines[-1]) == call.name
        if call.name == _AFTER_START:
            return _name(lines[-2]) in STARTS
        return self._where(lines[-1]) == call.where

    def _found(self, lines: list[str]) -> list[Call]:
        seen: Counter[str] = Counter()
        found: list[Call] = []
        started = ""
        for line in lines:
            name = _name(line)
            seen[name] += 1
            if name == _AFTER_START:
                if started:
                    found.append(Call(name, seen[name], f"{started} was started"))
                started = ""
            elif name in STARTS:
                started = self._program(line.rpartition("= ")[2])
                found.append(Call(name, seen[name], f"{started} is started"))
            elif name in CALLS:
                found.append(Call(name, seen[name], self._where(line)))
        return found

    def _program(self, pid: str) -> str:
        """What a child of a traced process ran, the last where one became another."""
        lines = (self._home / f"trace.{pid}").read_text().splitlines()
        ran = [line.split('"')[1] for line in lines if _name(line) == "execve" and "= 0" in line]
        return Path(ran[-1]).name if ran else "a process"

    def _where(self, line: str) -> str:
        """The files of a call, without what differs from one command to the next."""
        paths = [quoted or shown for quoted, shown in _PATH.findall(line)]
        text = " to ".join(path.replace(f"{self._home}/", "") for path in paths)
        return re.sub(r"[0-9a-f]{32}|\[\d+\]|(?<=/)\d+(?=_)", "*", text)

    def _fork(self, words: tuple[str, ...], *, traced: bool) -> int:
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
            sys.argv = ["launcher", *words]
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
        tracer = subprocess.Popen(["strace", "-qq", "-p", str(pid), *_SHOWN, *words])
        deadline = time.monotonic() + 60
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise RuntimeError("strace cannot trace here")
            time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        return tracer


def _name(line: str) -> str:
    """The call that a line of strace's tells of; empty: it tells of none."""
    found = re.match(r"(\w+)\(", line)
    return found[1] if found else ""


def _load() -> None:
    """Import what a command does, so that a fork of this process need not."""
    importlib.import_module("submitit")
    for found in pkgutil.walk_packages(launcher.__path__, "launcher."):
        if not found.name.startswith(("launcher.worker", "launcher.share")):
            importlib.import_module(found.name)
