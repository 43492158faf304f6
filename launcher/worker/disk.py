"""Patience with a disk: what cannot be read or written down now, may be in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from launcher.worker import classify

T = TypeVar("T")

AGAIN_S = 5.0
PATIENCE_S = 300.0
"""How long a disk may stay full, or leave a question without an answer."""
_POLL_S = 0.2


def waited_out(
    act: Callable[[], T],
    over: Callable[[], bool] = lambda: False,
    make_room: Callable[[], None] | None = None,
) -> T:
    """What `act` gives, which is called again while its disk is full or does not answer.

    `over`: whether there is no time left to wait; `make_room` is called once, where the disk is
    full. Raises the OSError once it has lasted for `PATIENCE_S`, or it is `over`; any other error
    at once.
    """
    began = time.monotonic()
    told = False
    while True:
        try:
            return act()
        except OSError as error:
            if make_room is not None and classify.is_full(error):
                with suppress(OSError):
                    make_room()
                make_room = None
                continue
            late = time.monotonic() - began > PATIENCE_S
            if late or over() or not classify.of_the_disk(error):
                raise
            if not told:
                print(f"waits for the disk: {error}", flush=True)
            told = True
        pause(AGAIN_S, over)


def pause(seconds: float, over: Callable[[], bool]) -> None:
    """Wait so long, or until it is `over`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not over():
        time.sleep(_POLL_S)
