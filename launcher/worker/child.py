"""The trainer process of one rank, as its supervisor sees it: started, watched, told, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.records.rounds import Killed
from launcher.worker import deadlines, heartbeat, host_memory, measure, orphan
from launcher.worker.outcome import FAILED, STOPPED
from launcher.worker.signals import Signals
from launcher.worker.stop import STOP_SIGNALS

POLL_S = 0.2
LOST_RANK_S = 5.0
"""How long a trainer may go on when another one of its world has ended: it waits in a collective
for ever, or is about to say why it ends too."""
_TRACEBACK_S = 1.0
"""What a hung trainer may take to print where it is."""


Others = Literal["stopped", "failed"]


@dataclass(frozen=True)
class Ran:
    """What became of the trainer of this rank."""

    code: int
    """Its exit code, as a shell would tell it (128 + signal)."""
    killed: Killed | None = None
    """Why this supervisor ended it, or did not start it."""
    words: str = ""
    """The same in a sentence, where there is more to say."""
    host_peak: int = 0
    """Largest resident set that was seen of it, in bytes: all there is of one that was killed."""
    out_of_host_memory: bool = False

    @property
    def well(self) -> bool:
        """Whether it ended as it should: done, or stopped when it was told to."""
        return self.code in (0, STOPPED)


@dataclass(frozen=True)
class Watch:
    """What a supervisor looks at while its trainer runs."""

    signals: Signals
    silence: deadlines.Silence
    signal_lead_s: float
    memory_limit: int
    """Host memory of this process's share, in bytes; 0: no limit is known."""
    deserted: Callable[[], bool]
    """Whether who started this job is gone."""
    lost: Callable[[], str | None] = lambda: None
    """Why the stage's server failed."""
    others: Callable[[], Others | None] = lambda: None
    """What became of a rank of the same world that ended before its time."""
    apart: bool = False
    """Whether the ranks do not wait for each other amid their work, as programs of the user's."""


def run(words: list[str], env: Mapping[str, str], watch: Watch) -> Ran:
    """Run the trainer process of this rank to its end. `words`: of `launcher.worker.train`."""
    listener = heartbeat.Listener()
    # It starts with the signals blocked, and takes them once it has a handler: a signal that
    # came while Python starts would end it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "launcher.worker.train", *words],
            env={
                **env,
                orphan.PARENT: str(os.getpid()),
                heartbeat.PIPE: str(listener.write),
            },
            stdin=subprocess.DEVNULL,
            pass_fds=(listener.write,),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        listener.started()
    try:
        return _watched(process, watch, listener)
    finally:
        listener.close()


def _watched(process: subprocess.Popen[bytes], watch: Watch, listener: heartbeat.Listener) -> Ran:
    kills = host_memory.kills()
    killed: Killed | None = None
    words, told, peak = "", False, 0
    asked = time.monotonic()
    others_since: float | None = None
    status = Path(f"/proc/{process.pid}/status")
    ended: Others | None = None
    while (code := process.poll()) is None:
        now = time.monotonic()
        if ended is None and now - asked >= 2 * POLL_S:
            asked = now
            ended = watch.others()
        if ended == "failed" or (ended == "stopped" and not watch.apart):
            others_since = others_since or now
        if (watch.signals.stop or ended == "stopped") and not told:
            # One signal, whatever it was for this supervisor.
            process.send_signal(signal.SIGUSR2)
            told = True
        if killed is None:
            alone = None if others_since is None else now - others_since
            killed, words = reason(watch, listener.silence(), listener.pace, alone)
            if killed is not None:
                if killed == "hang":
                    _print_where(process)
                process.kill()
        peak = max(peak, measure.host_peak(status))
        time.sleep(POLL_S)
    if killed == "server":
        code = FAILED
    number = code if code >= 0 else 128 - code
    by_signal = number == 128 + signal.SIGKILL and killed is None
    starved = by_signal and (
        host_memory.kills() > kills or host_memory.nearly_all(peak, watch.memory_limit)
    )
    return Ran(number, killed, words, peak, starved)


def reason(
    watch: Watch, silence: float, pace: heartbeat.Pace, alone: float | None
) -> tuple[Killed | None, str]:
    """Why a trainer must be ended now, in a word and a sentence; (None, "") while it may go on.

    `silence`: seconds since its last sign of life; `alone`: since another rank of its world ended,
    None where none has.
    """
    signals = watch.signals
    if signals.now or signals.overdue(watch.signal_lead_s):
        return "time", "its time was up before it could stop"
    if watch.deserted():
        return "ending", "what had started it was ended"
    server = watch.lost()
    if server is not None:
        return "server", server
    if alone is not None and alone > LOST_RANK_S:
        return "others", "another rank of its world had ended"
    limit = watch.silence.steps if pace == "steps" else watch.silence.slow
    if limit is not None and silence > limit:
        return "hang", f"gave no sign of life for {silence:.0f} s, {limit:.0f} s are allowed"
    return None, ""


def _print_where(process: subprocess.Popen[bytes]) -> None:
    """Let it print where each of its threads is. One that is stopped cannot."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
    time.sleep(_TRACEBACK_S)
