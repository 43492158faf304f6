#!/usr/bin/env python3
"""Every fault of the list, at seeded points, on a real Slurm: what does the launcher survive?

    python benchmarks/faults.py                     # all faults, all points: hours on two cores
    python benchmarks/faults.py --only "trainer is killed" --points 1
    python benchmarks/faults.py --table             # nothing but the table of what was found so far

Each point is a run of the tiny model in float32 on processors that a fault hits, and the proof that
it did; see docs/faults.md for what must be so afterwards. What was found is added to the file of
--json at once, a line a point, and the same command goes on with the points that are not well in
there. The table goes to standard output, and into docs/faults.md with --docs.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pages import filled
from tests.faults.every import every
from tests.faults.fault import Fault
from tests.faults.harness import Harness
from tests.faults.table import Row, add, newest, read, render, under

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "faults.jsonl"
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- faults: written by `make faults` -->", "<!-- end of faults -->"
VERSIONED = ("trl", "transformers", "torch", "deepspeed")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="faults whose name, or file, has these words; may be given often",
    )
    parser.add_argument("--quick", action="store_true", help="only those that `make test` has")
    parser.add_argument("--points", type=int, metavar="N", help="points of each (default: its own)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="begin no point after so long")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--again", action="store_true", help="points that are well in there too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave all runs in this folder")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/faults.md")
    args = parser.parse_args(argv)
    # Told to end, it ends its Slurm too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    faults = {
        name: fault
        for name, fault in every().items()
        if (not args.only or any(w in name or w == fault.group for w in args.only))
        and (fault.quick or not args.quick)
    }
    if not faults:
        parser.error("no fault has these words in its name")
    if not args.table:
        _run(args, faults)
    rows = list(newest(read(args.json), args.seed).values())
    table = render(rows, every() if args.docs else faults)
    print(table)
    if args.docs:
        _document(PAGE, table, rows)
    there = [row for row in rows if row["fault"] in faults]
    return 0 if there and all(row["survived"] for row in there) else 1


def _run(args: argparse.Namespace, faults: Mapping[str, Fault]) -> None:
    began = datetime.datetime.now()
    known = newest(read(args.json), args.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        home = args.keep.absolute() if args.keep else Path(scratch)
        with Harness(home, keep=args.keep is not None) as harness:
            for fault in faults.values():
                for point in range(args.points or fault.points):
                    row = known.get((fault.name, point))
                    if row is not None and row["survived"] and not args.again:
                        continue
                    spent = (datetime.datetime.now() - began).total_seconds() / 60
                    if args.minutes is not None and spent > args.minutes:
                        return
                    found = harness.find(fault, point, args.seed)
                    add(args.json, found, datetime.date.today().isoformat(), versions())
                    word = "survived" if found.survived else f"LOST: {found.why}"
                    print(
                        f"{found.fault} [{point}] {found.seconds:.0f} s, {found.proof}: {word}",
                        file=sys.stderr,
                        flush=True,
                    )


def versions() -> dict[str, str]:
    """Of the training stack, of Slurm, and the commit of this checkout."""
    found = {name: importlib.metadata.version(name) for name in VERSIONED}
    # Its commands ask for a configuration before they tell.
    slurm = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout.split()
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {**found, "slurm": slurm[-1] if slurm else "", "launcher": commit}


def _document(page: Path, table: str, rows: Sequence[Row]) -> None:
    """Put the table between the marks of the page, with dates and versions."""
    dates = sorted({row["date"] for row in rows})
    said = f"Run {dates[0]} to {dates[-1]}" if dates else "Not run yet"
    text = page.read_text(encoding="utf-8")
    block = f"{said}, with {under(rows)}.\n\n{table}"
    page.write_text(filled(text, BEGIN, END, block), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
