"""What a trainer logged, step by step: `metrics.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

Row = dict[str, float]
"""Figure → value, `step` among them."""

HEAD, TAIL = 2**16, 2**18
"""Bytes that are read of a long file, at its start and end: some sixty rows, and some 250."""


def read(path: Path) -> list[Row]:
    """The first and the last rows, in order; of steps that were done again, what was logged last.

    Empty where there is no file. Lines that were not written to their end are left out.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= HEAD + TAIL:
                lines = file.read().split(b"\n")
            else:
                lines = file.read(HEAD).split(b"\n")[:-1]
                file.seek(size - TAIL)
                lines += file.read().split(b"\n")[1:]
    except FileNotFoundError:
        return []
    steps: dict[float, Row] = {}
    for row in _rows(lines):
        known = steps.setdefault(row["step"], {})
        # A step may be logged several times: in training, of its evaluation, at the end.
        known |= row
    return [steps[step] for step in sorted(steps)]


def _rows(lines: list[bytes]) -> Iterator[Row]:
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield {k: v for k, v in found.items() if isinstance(v, int | float)}
