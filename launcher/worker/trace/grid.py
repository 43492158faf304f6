"""The committed grid of traces: `python -m launcher.worker.trace.grid FILE` makes it anew."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from launcher.worker.context import versions
from launcher.worker.trace.cases import Case, cases
from launcher.worker.trace.request import Request, Trace
from launcher.worker.trace.step import trace


def row_of(case: Case) -> dict[str, Any]:
    """A case and its bytes. Raises RuntimeError where it cannot be traced."""
    request = msgspec.convert(msgspec.to_builtins(case), Request)
    traced = trace(request)
    if not isinstance(traced, Trace):
        raise RuntimeError(f"{case.stage}: {traced.refused}")
    figures = {"phases": dict(traced.phases), "resident": traced.resident}
    return {**msgspec.to_builtins(case), **figures}


def main(path: Path) -> None:
    lines = []
    found = cases()
    for number, case in enumerate(found, 1):
        print(f"{number}/{len(found)} {case.stage['name']}", file=sys.stderr, flush=True)
        lines.append(json.dumps(row_of(case)))
        gc.collect()
    rows = ",\n".join(lines)
    path.write_text(f'{{"versions": {json.dumps(versions())},\n"rows": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
