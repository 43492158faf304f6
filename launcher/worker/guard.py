"""Between a supervisor or trainer process and a program of others: it ends with who started it.

python -m launcher.worker.guard SECONDS PROGRAM WORD… < PIPE

Whoever starts it holds the other end of the pipe. When that closes, because they let go or are
gone, the program's whole session is told to end, and is killed SECONDS later: the kernel could end
one process with its parent, not those that it started, and vLLM starts one for each GPU. No signal
does the same: Slurm may send what it has for the tasks to every process of a job, and the trainers
need their server for their last step.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from launcher.worker import orphan

_POLL_S = 0.1


def main(argv: list[str]) -> int:
    """The program's exit code, as a shell would tell it (128 + signal)."""
    grace = float(argv[0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    program = subprocess.Popen(
        argv[1:],
        stdin=subprocess.DEVNULL,
        # The run's copy of the launcher is no package of theirs.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        start_new_session=True,
        preexec_fn=_before,
    )
    deadline = None
    while (code := program.poll()) is None:
        if deadline is None:
            if select.select([0], [], [], _POLL_S)[0]:
                deadline = time.monotonic() + grace
                _send(program.pid, signal.SIGTERM)
            continue
        if time.monotonic() > deadline:
            _send(program.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    # What it started and did not end.
    _send(program.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _before() -> None:
    # The warning before a time limit, which ends a program that does not know it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    orphan.bind_to_parent()


def _send(session: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
