"""Findings as lines of JSON, and as a table. Pure but for the reading and adding of lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.fault import Fault
from tests.faults.harness import Finding

Row = dict[str, Any]
"""A finding, with `date` and `versions`."""


def read(path: Path) -> list[Row]:
    """The findings in a file, the oldest first; a line that was not written to its end is none."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def add(path: Path, finding: Finding, date: str, versions: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({**asdict(finding), "date": date, "versions": dict(versions)}))
        handle.write("\n")


def newest(rows: Iterable[Row], seed: int) -> dict[tuple[str, int], Row]:
    """Fault and point → what was found last, of this seed."""
    return {(row["fault"], row["point"]): row for row in rows if row["seed"] == seed}


def render(rows: Sequence[Row], faults: Mapping[str, Fault]) -> str:
    """Markdown: a line a fault, then what was lost."""
    lines = [
        "| fault | survived | hits | steps done twice | jobs | weights equal | goes on |",
        "|---|---|---|---|---|---|---|",
    ]
    lost = []
    for name, fault in faults.items():
        here = [row for row in rows if row["fault"] == name]
        if not here:
            lines.append(f"| {name} | – | | | | | |")
            continue
        good = [row for row in here if row["survived"]]
        same = [row["weights"] for row in good if row["weights"] is not None]
        jobs = sorted({row["jobs"] for row in here})
        lines.append(
            f"| {name} | {len(good)} of {len(here)} | {sum(r['hits'] for r in here)} "
            f"| {max(r['redone'] for r in here)} | {_span(jobs)} "
            f"| {f'{sum(same)} of {len(same)}' if same else '–'} | {fault.end} |"
        )
        lost += [f"- {name}, point {r['point']}: {r['why']}" for r in here if not r["survived"]]
    return "\n".join([*lines, *(["", "Lost:", "", *lost] if lost else [])])


def under(rows: Sequence[Row]) -> str:
    """The versions that the findings were made with: of each name all that there were."""
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: str(row["date"])):
        for name, value in row["versions"].items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in found.items())


def _span(numbers: Sequence[int]) -> str:
    if not numbers:
        return "–"
    low, high = numbers[0], numbers[-1]
    return str(low) if low == high else f"{low}–{high}"
