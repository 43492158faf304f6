#!/usr/bin/env python3
"""Every method, full and with LoRA, on one process and under ZeRO-2 and ZeRO-3: does it run?

    python benchmarks/methods.py                        # all cells: about an hour on two cores
    python benchmarks/methods.py --only sft,lora,zero2  # one cell
    python benchmarks/methods.py --json matrix.json     # the findings as data too; goes on with
                                                        # the cells that are not well in there

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
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.methods_matrix.cells import cells
from benchmarks.methods_matrix.matrix import Row, Walk, table
from benchmarks.methods_matrix.site import Failed, site

VERSIONED = ("trl", "transformers", "torch", "peft", "deepspeed")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", metavar="WORD,…", help="methods, adapters and setups to keep to"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave all runs in this folder")
    args = parser.parse_args(argv)
    try:
        wanted = cells(word for word in args.only.split(",") if word)
    except ValueError as error:
        parser.error(str(error))
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    rows = [row for row in _read(args.json) if row.good]
    known = {(row.method, row.adapter, row.setup) for row in rows}
    wanted = [cell for cell in wanted if (cell.method, cell.adapter, cell.setup) not in known]
    with tempfile.TemporaryDirectory(prefix="methods-") as scratch:
        home = args.keep.absolute() if args.keep else Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        try:
            with site(home) as here:
                for row in Walk(here, _say, keep=args.keep is not None).rows(wanted):
                    rows.append(row)
                    if args.json:
                        _write(args.json, rows)
        except Failed as error:
            _say(str(error))
            return 1
    print(table(rows))
    print(f"\n{', '.join(f'{name} {version}' for name, version in versions().items())}")
    return 0 if rows and all(row.good for row in rows) else 1


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONED}


def _read(path: Path | None) -> list[Row]:
    """The findings of earlier calls with these versions."""
    if path is None or not path.is_file():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    if document["versions"] != versions():
        return []
    return [Row(**{**cell, "gains": tuple(cell["gains"])}) for cell in document["cells"]]


def _write(path: Path, rows: Sequence[Row]) -> None:
    document = {"versions": versions(), "cells": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
