"""One cell after the other: what was found of each, and the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.methods_matrix import checks
from benchmarks.methods_matrix.cells import ADAPTERS, METHODS, SETUPS, WORDS, Cell, recipe
from benchmarks.methods_matrix.site import Failed, Site
from launcher.recipe import methods

CHECKS = ("train", "resume", "next")
YES = "yes"


@dataclass(frozen=True)
class Row:
    """One cell's findings: `yes`, or what was wrong in words."""

    method: str
    adapter: str
    setup: str
    train: str
    resume: str
    next: str
    seconds: float

    @property
    def good(self) -> bool:
        return all(getattr(self, check) == YES for check in CHECKS)


def judge(site: Site) -> str:
    """The folder of the reward model that cells with a judge share."""
    run = site.finish(recipe(Cell("reward", "full", "one"), "", following=False))
    return str(run.stage(METHODS["reward"].stage).model)


def walk(
    site: Site, cells: Sequence[Cell], say: Callable[[str], None], every_one: bool = False
) -> Iterator[Row]:
    """The findings of each cell, as they come. Cells of methods without a worker are `no worker`.

    Runs of a good cell are removed unless `every_one` is kept.
    """
    folder = judge(site) if any(METHODS[cell.method].judge for cell in cells) else ""
    for cell in cells:
        row = _cell(site, cell, folder)
        told = "; ".join(f"{check}: {getattr(row, check)}" for check in CHECKS)
        say(f"{cell.name} ({row.seconds:.0f} s): {told}")
        if row.good and not every_one:
            _forget(site.home / "runs", cell)
        yield row


def _cell(site: Site, cell: Cell, judge: str) -> Row:
    began = time.monotonic()
    found = dict.fromkeys(CHECKS, "not reached")
    if not methods.METHODS[cell.method].runs:
        found = dict.fromkeys(CHECKS, "no worker")
        return Row(cell.method, cell.adapter, cell.setup, **found, seconds=0.0)
    method = METHODS[cell.method]
    check = CHECKS[0]
    try:
        run = site.finish(recipe(cell, judge, following=True))
        # The run's end says that the stage after it has loaded what it made, and worked with it.
        checks.trained(run.stage(method.stage))
        found["train"] = YES
        check = "next"
        checks.the_trainers_logits(run.stage(method.stage), method.gives)
        found["next"] = YES
        check = "resume"
        stopped = site.stop_and_finish(recipe(cell, judge, following=False), method.stage)
        checks.the_same(stopped.stage(method.stage), run.stage(method.stage))
        found["resume"] = YES
    except Failed as error:
        found[check] = str(error)
    return Row(
        cell.method, cell.adapter, cell.setup, **found, seconds=round(time.monotonic() - began, 1)
    )


def _forget(runs: Path, cell: Cell) -> None:
    import shutil

    for path in runs.glob(f"{cell.name}-*"):
        shutil.rmtree(path)


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each method and adapter, a column for each setup, then what was wrong.

    A cell says what held, in the order of `CHECKS`; one that is all well says so in one word.
    """
    head = "| method | adapter | " + " | ".join(WORDS[each] for each in SETUPS) + " |"
    lines = [head, "|---|---|" + "---|" * len(SETUPS)]
    wrong = []
    for method in METHODS:
        for adapter in ADAPTERS:
            here = {r.setup: r for r in rows if (r.method, r.adapter) == (method, adapter)}
            if here:
                cells = [_word(here[each]) if each in here else "–" for each in SETUPS]
                lines.append(f"| {method} | {adapter} | " + " | ".join(cells) + " |")
            wrong += [
                f"- {row.method}, {row.adapter}, {WORDS[row.setup]}, {check}: {said}"
                for row in here.values()
                for check in CHECKS
                if (said := getattr(row, check)) not in (YES, "not reached")
            ]
    return "\n".join([*lines, *(["", *wrong] if wrong else [])])


def _word(row: Row) -> str:
    if row.good:
        return "all"
    good = [check for check in CHECKS if getattr(row, check) == YES]
    return ", ".join(good) if good else "none"
