"""The trainer process of one rank.

    python -m launcher.worker.train RUN STAGE TOKEN ROUND [RUNG]

ROUND is what `launcher.records.rounds.key` gives. It exits with a code of `launcher.worker.outcome`
and, when something goes wrong, leaves the first traceback and the class of the failure where the
supervisors find them. At SIGUSR1 it prints where each of its threads is.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from launcher.errors import LauncherError
from launcher.records import attempts, files, measurement
from launcher.records.paths import RunPaths
from launcher.worker import classify, disk, gate, measure, orphan, program, secrets, streams
from launcher.worker.context import Context, versions
from launcher.worker.finish import Finished
from launcher.worker.outcome import FAILED, STOPPED, USER_ERROR
from launcher.worker.stop import Leave, Stop


def main(run: str, stage: str, token: str, start: str, rung: str = "0") -> int:
    os.umask(0o077)
    streams.guard()
    orphan.die_with_supervisor()
    faulthandler.register(signal.SIGUSR1)
    stop = Stop()
    context, meter = None, None
    receipts, rank = RunPaths(Path(run)).stage(stage).attempts, int(os.environ["RANK"])
    failure = attempts.failure_path(receipts, start, rank)
    own = measurement.path(receipts, start, rank)
    try:
        stop.listen()
        stop.leave_at_once()
        disk.waited_out(lambda: failure.unlink(missing_ok=True))
        context = disk.waited_out(lambda: Context.of(run, stage, token, start, int(rung)))
        meter = context.meter = disk.waited_out(lambda: measure.Meter(own, "load"))
        context.enter("load")
        if context.stage.command is not None:
            finished = program.run(context, stop)
            missed = _close(context, finished, {}) if context.is_main else None
            if missed is not None:
                raise missed
            return 0 if finished is not None else STOPPED
        from launcher.worker import distributed, methods

        distributed.join(context)
        if not context.on_cpu:
            meter.on_device(context.local_rank)
        meter.versions = versions()
        finished = methods.run(context, stop)
        measured = measure.over_ranks(meter.finish())
        if context.is_main:
            files.write_json(own, measured)
        distributed.wait_for_all()
        missed = _close(context, finished, measured.peak_bytes) if context.is_main else None
        distributed.wait_for_all()
        if missed is not None:
            raise missed
    except Leave:
        print("told to stop, with nothing to save", flush=True)
        return STOPPED
    except BaseException as error:
        kind = classify.kind_of(error, on_cpu=context is not None and context.on_cpu)
        if isinstance(error, LauncherError):
            words = f"{error.message}; {error.hint}" if error.hint else error.message
            print(f"error: {words}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
            words = traceback.format_exception_only(error)[-1].strip()
        with suppress(OSError):
            _leave(failure, rank, words, kind)
        if isinstance(error, LauncherError):
            return USER_ERROR
        with suppress(Exception):
            # What it died at. That this cannot be told (the disk, the device) is no news.
            if meter is not None:
                meter.write(out_of_memory=classify.ran_out(error))
        return FAILED
    return 0 if finished is not None else STOPPED


def _close(
    context: Context, finished: Finished | None, peaks: Mapping[str, int]
) -> LauncherError | None:
    """Write COMPLETE.json, where the stage is done and its gate lets it pass; else say why."""
    if finished is None:
        return None
    try:
        gate.hold(context, finished.metrics)
    except LauncherError as missed:
        return missed
    finished.write(context, peaks)
    return None


def _leave(path: Path, rank: int, message: str, kind: attempts.Kind) -> None:
    hide = secrets.hider(os.environ)
    words = hide(traceback.format_exc())
    files.private_folder(path.parent)
    files.write_json(path, attempts.Failure(rank, hide(message), traceback=words, kind=kind))


def _exit(code: int) -> NoReturn:
    # Gloo's threads may abort at interpreter exit after everything is on disk.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main(*sys.argv[1:]))
