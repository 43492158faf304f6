"""One acting command a run at a time, where the file system can tell.

A courtesy between commands of one host: what keeps a chain single is the journal, whose numbers are
claimed one by one. So a lock that cannot be had, or is held for long, stops nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.records import files
from launcher.records.paths import RunPaths

PATIENCE_S = 30.0
POLL_S = 0.02


@contextmanager
def only_one(run: RunPaths) -> Iterator[None]:
    """Held until its end, or its holder's; others wait for it, but not for ever.

    Raises OSError where a link stands in its place.
    """
    try:
        descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, files.PRIVATE_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
        yield
        return
    try:
        _wait(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(POLL_S)
        except OSError:
            # ENOLCK, EOPNOTSUPP: a file system without locks.
            return
        else:
            return
