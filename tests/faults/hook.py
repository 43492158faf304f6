"""A fault inside a Python process, at the n-th time that it touches a file; in the jobs' Python.

FAULT_HOOK names a JSON file of rules:

    [{"module": "launcher.worker.train", "events": ["os.rename"], "path": "checkpoint-\\d+$",
      "nth": 2, "rank": 0, "do": "kill", "after_s": 0.0, "mark": "/somewhere/mark", "times": 1}]

An event is one of Python's audit events, which come before what they tell of; `start` is the start
of the process. `nth` counts within a process; `times` over all processes, of which each leaves
`MARK.1`, `MARK.2`, … with its pid, written before the fault.

`do`: `kill` (SIGKILL of this process), `stop` (SIGSTOP), `signal` (USR2 to its parent, the
supervisor), `errno ENOSPC` (the call fails so), `exhaust` (it fails as an allocation on a full GPU
does), `record` (the call is noted in the mark, and goes on).
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import threading
import time
from typing import Any


class _Rule:
    def __init__(self, rule: dict[str, Any]) -> None:
        self._events = frozenset(rule["events"])
        self._path = re.compile(rule.get("path", ""))
        self._nth, self._times = rule.get("nth", 1), rule.get("times", 1)
        self._do, self._after_s = rule["do"], rule.get("after_s", 0.0)
        self._mark = rule["mark"]
        self._writes = rule.get("writes", True)
        self._seen = 0

    def meets(self, event: str, words: tuple[Any, ...]) -> None:
        if event not in self._events:
            return
        paths = [os.fsdecode(word) for word in words if isinstance(word, str | bytes | os.PathLike)]
        if event == "open":
            paths = paths[:1]
            if self._writes and not _writes(words):
                return
        if event != "start" and not any(self._path.search(path) for path in paths):
            return
        if any(path.startswith(self._mark) for path in paths):
            return
        self._seen += 1
        if self._do == "record":
            with open(self._mark, "a") as handle:  # noqa: PTH123
                handle.write(json.dumps([event, paths[-1] if paths else ""]) + "\n")
        elif self._seen >= self._nth and self._claimed(event, paths):
            self._act()

    def _claimed(self, event: str, paths: list[str]) -> bool:
        """Whether this is one of the times; leaves the mark."""
        for number in range(1, self._times + 1):
            try:
                descriptor = os.open(f"{self._mark}.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            said = {"pid": os.getpid(), "time": time.time(), "event": event, "paths": paths}
            os.write(descriptor, json.dumps(said).encode())
            os.close(descriptor)
            return True
        return False

    def _act(self) -> None:
        word, _, detail = self._do.partition(" ")
        if word == "errno":
            number = getattr(errno, detail)
            raise OSError(number, os.strerror(number))
        if word == "exhaust":
            # There is no GPU here; what torch raises is the same.
            raise sys.modules["torch"].OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB"
            )
        target, number = {
            "kill": (os.getpid(), signal.SIGKILL),
            "stop": (os.getpid(), signal.SIGSTOP),
            "signal": (os.getppid(), signal.SIGUSR2),
        }[word]
        if self._after_s:
            timer = threading.Timer(self._after_s, os.kill, (target, number))
            timer.daemon = True
            timer.start()
        else:
            os.kill(target, number)


def _writes(words: tuple[Any, ...]) -> bool:
    """Whether an `open` is to write: its flags, else its mode, say so."""
    mode, flags = (*words, None, None)[1:3]
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return True
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")


def _install() -> None:
    where = os.environ.get("FAULT_HOOK", "")
    if not where or not os.path.exists(where):  # noqa: PTH110
        return
    with open(where) as handle:  # noqa: PTH123
        wanted = json.load(handle)
    rank = int(os.environ.get("RANK", "0"))
    line = " ".join(sys.orig_argv)
    rules = [
        _Rule(rule) for rule in wanted if rule["module"] in line and rule.get("rank", rank) == rank
    ]
    if not rules:
        return
    busy = threading.local()

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if getattr(busy, "on", False):
            return
        busy.on = True
        try:
            for rule in rules:
                rule.meets(event, words)
        finally:
            busy.on = False

    sys.addaudithook(hook)
    hook("start", ())


_install()
