"""The trainer process of one rank.

    python -m launcher.worker.train RUN STAGE TOKEN JOB_ID

It exits with a code of `launcher.worker.outcome` and, when something goes wrong, leaves the first
traceback where the supervisors find it.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from launcher.errors import LauncherError
from launcher.records import attempts, files
from launcher.worker import measure, orphan
from launcher.worker.context import Context
from launcher.worker.outcome import FAILED, STOPPED, USER_ERROR
from launcher.worker.stop import Stop


def main(run: str, stage: str, token: str, job_id: str) -> int:
    os.umask(0o077)
    orphan.die_with_supervisor()
    context = Context.of(run, stage, token, job_id)
    stop = Stop()
    stop.listen()
    failure = attempts.failure_path(context.paths.attempts, job_id, context.rank)
    failure.unlink(missing_ok=True)
    try:
        context.enter("load")
        from launcher.worker import distributed, methods

        distributed.join(context)
        finished = methods.run(context, stop)
        peaks = measure.largest_over_ranks(measure.peaks())
        if context.is_main:
            files.write_json(measure.path(context.paths, job_id), peaks)
            if finished is not None:
                finished.write(context, peaks)
        distributed.wait_for_all()
    except LauncherError as error:
        words = f"{error.message}; {error.hint}" if error.hint else error.message
        print(f"error: {words}", file=sys.stderr, flush=True)
        _leave(failure, context.rank, words, kind="user")
        return USER_ERROR
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(error)[-1].strip()
        _leave(failure, context.rank, last, kind="program")
        return FAILED
    return 0 if finished is not None else STOPPED


def _leave(path: Path, rank: int, message: str, kind: attempts.Blame) -> None:
    files.private_folder(path.parent)
    files.write_json(
        path,
        attempts.Failure(rank=rank, message=message, traceback=traceback.format_exc(), kind=kind),
    )


def _exit(code: int) -> NoReturn:
    # Gloo's threads may abort at interpreter exit after everything is on disk.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main(*sys.argv[1:]))
