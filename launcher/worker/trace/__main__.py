"""Reads a request from stdin, writes the answer to stdout; everything else goes to stderr."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout

from launcher.errors import LauncherError
from launcher.worker.trace.request import answer, parse


def main() -> int:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        requests = parse(sys.stdin.buffer.read())
    except LauncherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with redirect_stdout(sys.stderr):
        from launcher.worker.context import versions
        from launcher.worker.trace.step import trace

        text = answer(tuple(trace(request) for request in requests), versions())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
