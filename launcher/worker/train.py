"""The trainer process of one rank.

    python -m launcher.worker.train RUN STAGE TOKEN JOB_ID

It exits with a code of `launcher.worker.outcome` and, when something goes wrong, leaves the first
traceback where the supervisors find it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from launcher.errors import LauncherError
from launcher.records import attempts, files, measurement
from launcher.worker import gate, measure, orphan, program, secrets, streams
from launcher.worker.context import Context, versions
from launcher.worker.finish import Finished
from launcher.worker.outcome import FAILED, STOPPED, USER_ERROR
from launcher.worker.stop import Stop


def main(run: str, stage: str, token: str, job_id: str) -> int:
    os.umask(0o077)
    streams.guard()
    orphan.die_with_supervisor()
    context = Context.of(run, stage, token, job_id)
    stop = Stop()
    stop.listen()
    failure = attempts.failure_path(context.paths.attempts, job_id, context.rank)
    failure.unlink(missing_ok=True)
    own = measurement.path(context.paths.attempts, job_id, context.rank)
    meter = context.meter = measure.Meter(own, "load")
    try:
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
    except LauncherError as error:
        words = f"{error.message}; {error.hint}" if error.hint else error.message
        print(f"error: {words}", file=sys.stderr, flush=True)
        _leave(failure, context.rank, words, kind="user")
        return USER_ERROR
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(error)[-1].strip()
        _leave(failure, context.rank, last, kind="program")
        with suppress(Exception):
            # What it died at. That this cannot be told (the disk, the device) is no news.
            meter.write(out_of_memory=measure.ran_out(error))
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


def _leave(path: Path, rank: int, message: str, kind: attempts.Blame) -> None:
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
