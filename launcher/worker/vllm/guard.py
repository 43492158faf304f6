"""Between a supervisor and a server: the server and all that it started end with the supervisor.

python -m launcher.worker.vllm.guard PROGRAM WORD… < PIPE

The supervisor holds the other end of the pipe. When it closes, because the supervisor lets go or is
gone, the server's whole session ends: the kernel could end one process with its parent, not those
that it started, and vLLM starts one for each GPU. No signal does the same: Slurm may send what it
has for the tasks to every process of a job, and the trainers need the server for their last step.
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

GRACE_S = 5.0
"""Between the word that the server shall end, and its end."""
_POLL_S = 0.1


def main(argv: list[str]) -> int:
    """The server's exit code, as a shell would tell it (128 + signal)."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_before
    )
    deadline = None
    while (code := server.poll()) is None:
        if deadline is None:
            if select.select([0], [], [], _POLL_S)[0]:
                deadline = time.monotonic() + GRACE_S
                _send(server.pid, signal.SIGTERM)
            continue
        if time.monotonic() > deadline:
            _send(server.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    # What it started and did not end.
    _send(server.pid, signal.SIGKILL)
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
