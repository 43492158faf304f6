"""Standard output and error of a job: a full disk ends no training, and no secret is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TextIO, cast

from launcher.worker import secrets

_told: set[str] = set()


def guard() -> None:
    """Put both streams of this process under guard."""
    hide = secrets.hider(os.environ)
    sys.stdout = cast(TextIO, Guarded(sys.stdout, hide))
    sys.stderr = cast(TextIO, Guarded(sys.stderr, hide))


class Guarded:
    """A text stream whose failures are nobody's, and that leaves out what `hide` takes out."""

    def __init__(self, stream: TextIO, hide: Callable[[str], str]) -> None:
        self._stream, self._hide = stream, hide

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(self._hide(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgive(what: str, write: Callable[[], object]) -> None:
    """Do without a write that fails, of something that a training does not need; say so once."""
    try:
        write()
    except OSError as error:
        if what not in _told:
            _told.add(what)
            print(
                f"{what} is not written: {error.strerror or error}; the stage goes on", flush=True
            )
