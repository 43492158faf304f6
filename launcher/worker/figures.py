"""The numbers that a program left for gates and reports: its own, or those of lm-eval."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import UsageError


def left_in(out: Path) -> dict[str, float]:
    """Figure → value, from `metrics.json` in `out`; where there is none, from the files of results
    that lm-eval left below it.

    Raises UsageError where `metrics.json` holds no mapping.
    """
    own = out / "metrics.json"
    if not own.is_file():
        return _of_lm_eval(out)
    try:
        found = json.loads(own.read_bytes())
    except ValueError as error:
        raise UsageError(f"{own} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{own} holds no mapping of figures")
    return dict(_numbers(found.items()))


def _of_lm_eval(out: Path) -> dict[str, float]:
    """TASK/METRIC → value. lm-eval has a folder for each model, and a file in it for each time that
    it was run; the newest tells. What it says of two models is not told apart by a figure's name,
    and left out."""
    folders: dict[Path, dict[str, float]] = {}
    # The files' names are their times.
    for path in sorted(out.rglob("results_*.json")):
        folders.setdefault(path.parent, {}).update(_of_file(path))
    times = Counter(name for found in folders.values() for name in found)
    several = sorted(name for name, count in times.items() if count > 1)
    if several:
        print(f"of more than one model, and so no figure: {', '.join(several)}", flush=True)
    return {
        name: value
        for found in folders.values()
        for name, value in found.items()
        if times[name] == 1
    }


def _of_file(path: Path) -> Iterator[tuple[str, float]]:
    try:
        tasks = json.loads(path.read_bytes())["results"].items()
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        # Some other program's.
        return
    for task, measures in tasks:
        if isinstance(measures, Mapping):
            # `acc,none` is the metric `acc` of answers that no filter has gone over.
            named = ((f"{task}/{name.removesuffix(',none')}", v) for name, v in measures.items())
            yield from _numbers(named)


def _numbers(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)
