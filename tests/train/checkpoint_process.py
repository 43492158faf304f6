"""Trainer processes of one rank each, killed or told to stop at a given moment.

    python checkpoint_process.py < attempts.json

The input is a list of attempts, started one after another: `run`, `stage`, `processes`, and what
befalls it, if anything: `signal` is sent to `rank` at the last of `moments`, each waited for in its
turn. A moment is one of Python's audit events (which come before the kernel is asked), with a
pattern for its arguments, or `["training_step", N]`, the Nth micro-batch. Ranks are forked from
this process, which has imported everything, and when one dies the others are killed, as by their
supervisors. Prints a list: for each attempt the exit codes of its ranks, −N for signal N.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import deepspeed  # noqa: F401
import torch
import transformers

from launcher.worker import fit, train  # noqa: F401
from launcher.worker.offline import build, completion  # noqa: F401
from launcher.worker.online import grouped  # noqa: F401
from launcher.worker.ppo import trainer  # noqa: F401


def befall(moments: list[list[Any]], number: int) -> None:
    """Send `number` to this process at the last of the moments."""
    left = list(moments)

    def passed() -> None:
        left.pop(0)
        if not left:
            os.kill(os.getpid(), number)

    def hear(event: str, given: tuple[object, ...]) -> None:
        if left and event == left[0][0] and re.search(left[0][1], str(given)):
            passed()

    step, done = transformers.Trainer.training_step, 0

    def training_step(self: Any, *given: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if left and left[0] == ["training_step", done]:
            passed()
        return step(self, *given, **options)

    if moments[0][0] == "training_step":
        transformers.Trainer.training_step = training_step
    else:
        sys.addaudithook(hear)


def be_rank(attempt: dict[str, Any], rank: int, port: int) -> NoReturn:
    """Be a trainer process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(attempt["processes"]),
        "LOCAL_WORLD_SIZE": str(attempt["processes"]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    log = os.open(Path(attempt["run"]) / f"rank{rank}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if "moments" in attempt and attempt["rank"] == rank:
        befall(attempt["moments"], attempt["signal"])
    train._exit(train.main(attempt["run"], attempt["stage"], "token", "1"))


def codes(attempt: dict[str, Any]) -> list[int]:
    """Run the attempt to its end; the exit codes of its ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sys.stdout.flush()
    ranks: dict[int, int] = {}
    for rank in range(attempt["processes"]):
        pid = os.fork()
        if pid == 0:
            be_rank(attempt, rank, port)
        ranks[pid] = rank
    found: dict[int, int] = {}
    while len(found) < len(ranks):
        pid, status = os.wait()
        found[pid] = os.waitstatus_to_exitcode(status)
        if found[pid] < 0:
            for other in ranks.keys() - found.keys():
                os.kill(other, signal.SIGKILL)
    return [found[pid] for pid in sorted(ranks, key=lambda pid: ranks[pid])]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([codes(attempt) for attempt in json.load(sys.stdin)]))
