"""Kill a command at each system call that changes something; the next command then ends with
exactly one chain.

    python -m tests.slurm.sweep SLURM_CONF FOLDER POINTS SEED COMMAND...

POINTS of each command (`all`: every call), chosen by SEED; the commands are those of
`tests.slurm.swept`.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.slurm.killed import Call
from tests.slurm.standing import Place, Standing
from tests.slurm.swept import KILLED

DRAWS = 3
"""How often a kill is tried that did not hit where it should."""


@dataclass(frozen=True)
class Point:
    """One command that was killed."""

    call: Call
    hit: bool
    """Whether it was killed there."""
    then: str
    """The command that followed."""
    wrong: str
    """What that one did not put right; empty: exactly one chain."""


class Sweep:
    """One command that is killed again and again, each time in the same place."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._killed = place, KILLED[name]
        self._name = "-".join(name.replace(",", "").split())
        self._before: Standing | None = None

    def calls(self) -> list[Call]:
        """Where the command can be killed."""
        self._stand()
        return self._place.launcher.calls(*self._words(self._killed.words))

    def kill_at(self, call: Call, number: int) -> Point:
        """Kill the command there, then give the one that follows in the turn of `number`."""
        then = self._killed.then[number % len(self._killed.then)]
        for _ in range(DRAWS):
            before = self._stand()
            hit = self._place.launcher.kill(call, *self._words(self._killed.words))
            code = self._place.launcher.run(*self._words(then))
            wrong = f"exit code {code}: {self._place.launcher.said}" if code else ""
            checks = (check(self._place, before) for check in self._killed.checks)
            wrong = wrong or next((found for found in checks if found), "")
            if hit or wrong:
                break
        return Point(call, hit, then[0], wrong)

    def _stand(self) -> Standing:
        """Bring the place to where the command is to find it."""
        if not self._killed.lasts:
            return self._make()
        # What has been put back once makes the same calls each time: its files are links.
        while self._before is None or not self._before.put_back():
            self._before = self._make()
        return self._before

    def _make(self) -> Standing:
        self._killed.before(self._place)
        return Standing.of(self._place, self._name)

    def _words(self, words: Sequence[str]) -> list[str]:
        known = {"RECIPE": str(self._place.home / "programs.yaml")}
        if "RUN" in words:
            known["RUN"] = self._place.run.root.name
        return [known.get(word, word) for word in words]


def spread(calls: Sequence[Call], points: int, rng: random.Random) -> list[Call]:
    """So many of `calls`, from as many kinds of places as there are: most are of one kind, the
    files of the run's code."""
    kinds: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        kinds[call.name, call.where.rpartition("/")[0]].append(call)
    chosen = rng.sample(sorted(kinds), min(points, len(kinds)))
    return [rng.choice(kinds[kind]) for kind in chosen]


def sweep(place: Place, name: str, points: int | None, seed: int) -> list[Point]:
    """The points of a command: so many, chosen by `seed`, or all."""
    target = Sweep(place, name)
    calls = target.calls()
    rng = random.Random(f"{seed}/{name}")
    # In any order, so that a sweep which is ended early has been everywhere.
    chosen = rng.sample(calls, len(calls)) if points is None else spread(calls, points, rng)
    found: list[Point] = []
    for number, call in enumerate(chosen):
        found.append(target.kill_at(call, number))
        last = found[-1]
        if last.wrong or not last.hit or len(found) % 20 == 0:
            print(f"{name}: {len(found)} of {len(chosen)}: {last}", file=sys.stderr, flush=True)
    return found


def told(points: Sequence[Point], seconds: float) -> dict[str, Any]:
    """What came of the points of one command."""
    return {
        "points": len(points),
        "hit": sum(point.hit for point in points),
        "calls": Counter(point.call.name for point in points if point.hit),
        "where": Counter(point.call.where for point in points if point.hit),
        "then": Counter(point.then for point in points),
        "wrong": [asdict(point) for point in points if point.wrong],
        "seconds": round(seconds),
    }


def main(slurm_conf: str, home: str, points: str, seed: str, *names: str) -> int:
    place = Place(Path(home), slurm_conf)
    report = {}
    for name in names:
        began = time.monotonic()
        met = sweep(place, name, None if points == "all" else int(points), int(seed))
        report[name] = told(met, time.monotonic() - began)
        place.clear()
        short = {key: value for key, value in report[name].items() if key != "where"}
        print(f"{name}: {json.dumps(short)}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))
    return 1 if any(found["wrong"] for found in report.values()) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
