"""One cell after the other: what was found of each, and the table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.methods_matrix import checks, learning
from benchmarks.methods_matrix.cells import ADAPTERS, LEARNING, METHODS, WORDS, Cell, recipe
from benchmarks.methods_matrix.site import Failed, Site

CHECKS = ("train", "resume", "next")
LEARNS = "learns"
YES = "yes"


@dataclass(frozen=True)
class Row:
    """One cell's findings."""

    method: str
    adapter: str
    setup: str
    found: dict[str, str]
    """Check → `yes`, or what was wrong in words; those not reached are absent."""
    seconds: float
    gains: tuple[float, ...] = ()
    """Of each seed, in the unit of the method's goal."""

    @property
    def good(self) -> bool:
        return all(self.found.get(check) == YES for check in expected(self.setup))


def expected(setup: str) -> tuple[str, ...]:
    """The checks of a setup's cells."""
    return (LEARNS,) if setup == LEARNING else CHECKS


class Walk:
    """Runs cells, one at a time. What several cells start from is trained when first needed."""

    def __init__(self, site: Site, say: Callable[[str], None], *, keep: bool = False) -> None:
        self._site, self._say, self._keep = site, say, keep
        self._shared: dict[str, str] = {}
        """Folders of models by the names of their runs."""

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """The findings of each cell, as they come. Runs of good cells are removed unless kept."""
        for cell in cells:
            began = time.monotonic()
            found: dict[str, str] = {}
            gains: tuple[float, ...] = ()
            if cell.setup == LEARNING:
                gains = self._learn(cell, found)
            else:
                self._check(cell, found)
            seconds = round(time.monotonic() - began, 1)
            row = Row(cell.method, cell.adapter, cell.setup, found, seconds, gains)
            told = "; ".join(f"{check}: {said}" for check, said in found.items())
            self._say(f"{cell.name} ({seconds:.0f} s): {told}")
            if row.good and not self._keep:
                for path in (self._site.home / "runs").glob(f"{cell.name}-*"):
                    shutil.rmtree(path)
            yield row

    def _check(self, cell: Cell, found: dict[str, str]) -> None:
        method, check = METHODS[cell.method], "train"
        try:
            judge = self._judge if method.judge else ""
            run = self._site.finish(recipe(cell, judge, following=True))
            # Its end says that the stage after has loaded what was made, and worked with it.
            made = run.stage(method.stage)
            checks.trained(made)
            found[check] = YES
            check = "next"
            checks.the_trainers_logits(made, method.gives)
            found[check] = YES
            check = "resume"
            stopped = self._site.stop_and_finish(recipe(cell, judge, following=False), method.stage)
            checks.the_same(stopped.stage(method.stage), made)
            found[check] = YES
        except Failed as error:
            found[check] = str(error)

    def _learn(self, cell: Cell, found: dict[str, str]) -> tuple[float, ...]:
        goal, stage = learning.GOALS[cell.method], METHODS[cell.method].stage
        gains = []
        try:
            judge = self._judge if METHODS[cell.method].judge else ""
            policy = self._once("sft", goal.school)
            for seed in learning.SEEDS:
                run = self._site.finish(learning.recipe(cell, seed, policy, judge))
                gains.append(round(learning.gain(run.stage(stage).metrics, goal.figure), 4))
        except Failed as error:
            found[LEARNS] = str(error)
            return tuple(gains)
        least = goal.least(cell.adapter)
        found[LEARNS] = YES if min(gains) >= least else f"{_gained(goal, gains, least)}"
        return tuple(gains)

    @property
    def _judge(self) -> str:
        """The folder of a reward model, trained for so long that it does not give every answer of a
        policy that has learned its data the highest score: there would be nothing to gain."""
        return self._once("reward", {"max_steps": 30})

    def _once(self, method: str, train: dict[str, float]) -> str:
        """The model of one training for all cells, with keys of `train:` in place of a cell's."""
        name = f"shared-{method}-{train['max_steps']:g}"
        if name not in self._shared:
            document = recipe(Cell(method, "full", "one"), "", following=False)
            stage = METHODS[method].stage
            document["stages"][stage]["train"] |= train
            run = self._site.finish({**document, "name": name})
            self._shared[name] = str(run.stage(stage).model)
        return self._shared[name]


def _gained(goal: learning.Goal, gains: Sequence[float], least: float) -> str:
    sign = -1 if goal.figure.startswith("-") else 1
    told = ", ".join(f"{sign * gain:+.2g}" for gain in gains)
    return f"{goal.name} {told} ({sign * least:+g} wanted)"


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each method and adapter, a column for each setup, then what was wrong.

    A cell names the checks that held, or says `all`; one of three seeds says by how much the
    method's goal rose or fell.
    """
    lines = ["| method | adapter | " + " | ".join(WORDS.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(WORDS))
    wrong = []
    for method in METHODS:
        for adapter in ADAPTERS:
            here = {r.setup: r for r in rows if (r.method, r.adapter) == (method, adapter)}
            if here:
                cells = [_word(here[each]) if each in here else "–" for each in WORDS]
                lines.append(f"| {method} | {adapter} | " + " | ".join(cells) + " |")
            wrong += [
                f"- {row.method}, {row.adapter}, {WORDS[row.setup]}, {check}: {said}"
                for row in here.values()
                for check, said in row.found.items()
                if said != YES
            ]
    return "\n".join([*lines, *(["", *wrong] if wrong else [])])


def _word(row: Row) -> str:
    if row.setup == LEARNING and row.gains:
        goal = learning.GOALS[row.method]
        return _gained(goal, row.gains, goal.least(row.adapter))
    if row.good:
        return "all"
    good = [check for check in expected(row.setup) if row.found.get(check) == YES]
    return ", ".join(good) if good else "none"
