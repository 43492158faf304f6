#!/usr/bin/env python3
"""Random faults, a hundred of them, in chains of SFT → reward model → PPO: what is lost, and how
much time?

    python benchmarks/soak.py                   # until a hundred faults have hit: about two hours
    python benchmarks/soak.py --minutes 30      # as many as come in half an hour
    python benchmarks/soak.py --report          # what was found so far

One chain after the other on a Slurm of its own, each hit again and again wherever it is (see
tests/faults/strikes.py), drawn from --seed and the chain's number. A chain has survived its faults
when it ended COMPLETE, no job trained twice at once, no stage began before the one that it builds
on, and the weights are bit for bit those of the undisturbed chain. A line a chain goes to the file
of --json; the same command goes on until there are --faults.

ETTR, the effective training time ratio, is the wall time of the undisturbed chain (run first, in
the same session) over that of the disturbed one, both from `launcher submit` to the last COMPLETE.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.faults import PAGE, ROOT, versions
from benchmarks.pages import filled
from tests.faults import checks, processes
from tests.faults.case import Case
from tests.faults.fault import Lost, Missed
from tests.faults.scenes import LONG
from tests.faults.site import Site, site
from tests.faults.strikes import STRIKES, Target
from tests.faults.table import under

RESULTS = ROOT / "benchmarks" / "results" / "soak.jsonl"
BEGIN, END = "<!-- soak: written by `make soak` -->", "<!-- end of soak -->"
PATIENCE_S = 600
"""How long a chain may take from one fault to a trainer at work again."""
WITHOUT_PROGRESS = 2
"""Faults in a row that leave no newer checkpoint; a third waits for one. The launcher itself gives
up after some."""


@dataclass
class Soaked:
    """One chain."""

    chain: int
    seed: int
    hits: list[dict[str, Any]] = field(default_factory=list)
    """`strike`, `stage`, `proof`, and `back_s`: seconds until a trainer was at work again."""
    survived: bool = False
    why: str = ""
    commands: int = 0
    """How often a command was needed to go on."""
    seconds: float = 0
    plain_seconds: float = 0
    redone: int = 0
    jobs: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100, metavar="N")
    parser.add_argument("--minutes", type=float, help="begin no chain after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave all runs in this folder")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--docs", action="store_true", help=f"write the report into {PAGE.name}")
    args = parser.parse_args(argv)
    # Told to end, it ends its Slurm too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.report:
        with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
            home = args.keep.absolute() if args.keep else Path(scratch)
            with site(home / "soak", "own") as here:
                _soak(args, here)
    rows = _read(args.json, args.seed)
    print(report(rows))
    if args.docs:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(filled(text, BEGIN, END, report(rows)), encoding="utf-8")
    return 0 if rows and all(row["survived"] for row in rows) else 1


def _soak(args: argparse.Namespace, here: Site) -> None:
    began = time.monotonic()
    plain_s, weights = _plain(here, 0)
    while True:
        rows = _read(args.json, args.seed)
        hits = sum(len(row["hits"]) for row in rows)
        late = args.minutes is not None and time.monotonic() - began > args.minutes * 60
        if hits >= args.faults or late:
            return
        chain = 1 + max((row["chain"] for row in rows), default=-1)
        soaked = Soaked(chain, args.seed, plain_seconds=plain_s)
        _chain(here, soaked, weights, args.faults - hits)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        with args.json.open("a", encoding="utf-8") as handle:
            date = datetime.date.today().isoformat()
            row = {**asdict(soaked), "date": date, "versions": versions()}
            handle.write(json.dumps(row) + "\n")
        word = "survived" if soaked.survived else f"LOST: {soaked.why}"
        print(
            f"chain {chain}: {len(soaked.hits)} faults in {soaked.seconds:.0f} s "
            f"(undisturbed {plain_s:.0f} s): {word}",
            file=sys.stderr,
            flush=True,
        )


def _plain(here: Site, number: int) -> tuple[float, dict[str, str]]:
    """Seconds and weights of an undisturbed chain."""
    case = Case(here, LONG, random.Random(0), f"plain-{number}")
    began = time.time()
    try:
        case.submit()
        case.finish(1800)
        return case.ended_at - began, checks.weights(case.root, LONG.trained)
    finally:
        case.close()
        here.heal()


def _chain(here: Site, soaked: Soaked, weights: dict[str, str], most: int) -> None:
    rng = random.Random(f"{soaked.seed}/{soaked.chain}")
    stamp = f"{time.time_ns() // 1_000_000 % 10**9:x}"
    case = Case(here, LONG, rng, f"soak-{soaked.chain}-{stamp}")
    began = time.time()
    try:
        case.submit()
        _strike_until_complete(case, soaked, most)
        case.finish(PATIENCE_S)
        soaked.seconds = round(case.ended_at - began, 1)
        _look(case, weights)
        soaked.survived = True
    except Lost as lost:
        soaked.why = str(lost)[:600]
        soaked.seconds = round(time.time() - began, 1)
    finally:
        case.close()
        if case.run is not None:
            soaked.redone = max(checks.redone(case.steps(name)) for name in LONG.stages)
            soaked.jobs = len(case.jobs())
            here.call("cancel", case.root.root.name)
        here.heal()


def _strike_until_complete(case: Case, soaked: Soaked, most: int) -> None:
    names = list(STRIKES)
    odds = [STRIKES[name][0] for name in names]
    since: Counter[str] = Counter()
    newest: dict[str, int] = {}
    while not case.complete() and len(soaked.hits) < most:
        stage = _until_trainer(case, soaked)
        if stage is None:
            return
        reached = _newest(case, stage)
        if reached > newest.get(stage, 0):
            newest[stage], since[stage] = reached, 0
        pause = case.rng.uniform(0, 6)
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline or since[stage] >= WITHOUT_PROGRESS:
            if case.complete(stage):
                break
            if _newest(case, stage) > newest.get(stage, 0):
                newest[stage], since[stage] = _newest(case, stage), 0
            time.sleep(0.05)
        if case.complete(stage):
            continue
        name = case.rng.choices(names, odds)[0]
        at = time.monotonic()
        try:
            proof = STRIKES[name][1](Target(case, stage))
        except Missed:
            continue
        since[stage] += 1
        hit = {"strike": name, "stage": stage, "proof": proof, "back_s": 0.0}
        soaked.hits.append(hit)
        _until_trainer(case, soaked)
        hit["back_s"] = round(time.monotonic() - at, 1)


def _until_trainer(case: Case, soaked: Soaked) -> str | None:
    """The stage that a trainer is at work for; None: the chain is complete. Raises Lost.

    Where nobody acts by itself (each process of the job is dead), the same command does.
    """
    began = time.monotonic()
    asked = began
    while True:
        if case.complete():
            return None
        for each in processes.of_run(case.root.root, processes.TRAINER):
            if not case.complete(each.stage):
                return each.stage
        now = time.monotonic()
        if now - began > PATIENCE_S:
            raise Lost(f"no trainer for {PATIENCE_S} s: {case.told()}")
        if now - asked > 15:
            asked = now
            states = {stage["state"] for stage in case.status()["stages"]}
            if states & {"failed", "blocked", "absent", "cancelled"}:
                soaked.commands += 1
                if soaked.commands > len(soaked.hits):
                    raise Lost(f"the same command does not help: {case.told()}")
                case.again()
        time.sleep(0.1)


def _newest(case: Case, stage: str) -> int:
    folder = case.root.stage(stage).checkpoints
    names = [p.parent.name for p in folder.glob("checkpoint-*/COMMIT.json")]
    steps = [name.removeprefix("checkpoint-") for name in names]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _look(case: Case, weights: dict[str, str]) -> None:
    """Raises Lost where the chain is not what the undisturbed one is."""
    assert case.watch is not None
    for stage, rank in sorted(case.watch.twice):
        raise Lost(f"stage {stage}, rank {rank}: two trainers at once")
    for stage in LONG.stages:
        checks.upstream(case, stage)
    case.until_gone()
    if checks.weights(case.root, LONG.trained) != weights:
        raise Lost("the weights are not those of the undisturbed chain")


def _read(path: Path, seed: int) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["seed"] == seed:
            rows.append(row)
    return rows


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Faults survived, by kind; steps done twice; ETTR. Markdown. Pure."""
    hits = [{**hit, "survived": row["survived"]} for row in rows for hit in row["hits"]]
    good = sum(hit["survived"] for hit in hits)
    whole = [row for row in rows if row["survived"]]
    lines = [
        f"{good} of {len(hits)} faults survived, in {len(rows)} chains"
        f" ({len(whole)} of them complete, with the weights of the undisturbed one).",
        "",
        "| fault | survived | back after, median |",
        "|---|---|---|",
    ]
    for name in STRIKES:
        mine = [hit for hit in hits if hit["strike"] == name]
        if mine:
            back = sorted(hit["back_s"] for hit in mine)[len(mine) // 2]
            survived = sum(hit["survived"] for hit in mine)
            lines.append(f"| {name} | {survived} of {len(mine)} | {back:.0f} s |")
    if whole:
        wall = sum(row["seconds"] for row in whole)
        ettr = sum(row["plain_seconds"] for row in whole) / wall
        each = wall / max(1, sum(len(row["hits"]) for row in whole))
        lines += [
            "",
            f"Most steps done twice after a fault: {max(row['redone'] for row in whole)}; jobs:"
            f" {sum(row['jobs'] for row in whole)} for {len(whole) * len(LONG.stages)} stages;"
            f" commands that somebody had to give: {sum(row['commands'] for row in whole)}.",
            f"ETTR {ettr:.2f} with a fault every {each:.0f} s.",
        ]
    lines += [f"- chain {row['chain']}: {row['why']}" for row in rows if not row["survived"]]
    if rows:
        lines += ["", f"{rows[0]['date']} to {rows[-1]['date']}; {under(rows)}."]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
