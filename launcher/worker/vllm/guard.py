"""Between a supervisor and a server: the server and all that it started end with the supervisor.

python -m launcher.worker.vllm.guard PROGRAM WORD…

The kernel can end one process when its parent dies, not the processes that it started, and vLLM
starts one for each GPU. So the server leads a session of its own, and whatever ends this process
but SIGKILL ends that whole session first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from launcher.worker import orphan

GRACE_S = 10.0
"""Between the word that the server shall end, and its end."""
_POLL_S = 0.1


class _Told:
    end = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.end = True


def main(argv: list[str]) -> int:
    """The server's exit code, as a shell would tell it (128 + signal)."""
    told = _Told()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told.note)
    orphan.end_with_supervisor(signal.SIGTERM)
    server = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=orphan.bind_to_parent
    )
    deadline = None
    while (code := server.poll()) is None:
        if told.end and deadline is None:
            deadline = time.monotonic() + GRACE_S
            _send(server.pid, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            _send(server.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    # What it started and did not end.
    _send(server.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _send(session: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
