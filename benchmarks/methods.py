#!/usr/bin/env python3
"""Every method, full and with LoRA, on one process and under ZeRO-2 and ZeRO-3: does it run?

    python benchmarks/methods.py                        # all cells: about an hour on two cores
    python benchmarks/methods.py --only sft,lora,zero2  # one cell
    python benchmarks/methods.py --json matrix.json     # findings kept elsewhere
    python benchmarks/methods.py --docs                 # the table into docs/methods.md, too

Findings are kept as they come, and cells that are well there are not run again.

Each cell is two runs of the launcher on a Slurm that is started for it, of the tiny model, in
float32 on processors. The first ends COMPLETE with every trained tensor changed (train), its saved
model computes what the trainer's last checkpoint does, and a further stage has read it (next). The
second is told to stop amid its steps, goes on by itself, and leaves the same weights bit for bit
(resume). A third kind of cell trains longer from three seeds, and says how far the method's goal
rose. What is printed is Markdown.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.methods_matrix.cells import cells
from benchmarks.methods_matrix.matrix import Row, Walk, table
from benchmarks.methods_matrix.site import Failed, site
from benchmarks.pages import filled

RESULTS = Path(__file__).parent / "results" / "methods.json"
PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- cells -->", "<!-- end of cells -->"
VERSIONED = ("trl", "transformers", "torch", "peft", "deepspeed")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", metavar="WORD,…", help="methods, adapters and setups to keep to"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=RESULTS, help="keep the findings there"
    )
    parser.add_argument("--docs", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave all runs in this folder")
    args = parser.parse_args(argv)
    try:
        wanted = cells(word for word in args.only.split(",") if word)
    except ValueError as error:
        parser.error(str(error))
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    # The Slurm that is started here ends with this program, however that is ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    rows = [row for row in read(args.json) if row.good]
    known = {(row.method, row.adapter, row.setup) for row in rows}
    wanted = [cell for cell in wanted if (cell.method, cell.adapter, cell.setup) not in known]
    with tempfile.TemporaryDirectory(prefix="methods-") as scratch:
        home = args.keep.absolute() if args.keep else Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        try:
            with site(home) as here:
                for row in Walk(here, _say, keep=args.keep is not None).rows(wanted):
                    rows.append(row)
                    _write(args.json, rows)
        except Failed as error:
            _say(str(error))
            return 1
    if args.docs:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    print(table(rows))
    print(f"\n{', '.join(f'{name} {version}' for name, version in versions().items())}")
    return 0 if rows and all(row.good for row in rows) else 1


def page(text: str, rows: Sequence[Row]) -> str:
    """The page with the table of `rows` in place of its own."""
    return filled(text, BEGIN, END, table(rows))


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONED}


def read(path: Path) -> list[Row]:
    """The findings of earlier calls with these versions."""
    if not path.is_file():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    return rows_of(document) if document["versions"] == versions() else []


def rows_of(document: dict[str, Any]) -> list[Row]:
    """What is kept, whatever it was found with."""
    return [Row(**{**cell, "gains": tuple(cell["gains"])}) for cell in document["cells"]]


def _write(path: Path, rows: Sequence[Row]) -> None:
    document = {"versions": versions(), "cells": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
