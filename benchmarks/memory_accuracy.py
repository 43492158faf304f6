#!/usr/bin/env python3
"""Scores the memory estimate on measured peaks: `memory_accuracy.py [--rows FILE] [--json]`.

Every row of the file is either scored or listed with the reason why it cannot be. Errors are
relative: above 0 the estimate is too high. `--peers` scores other estimators on the same rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory_rows.row import load
from benchmarks.memory_rows.score import Point, Score, score, verdicts
from benchmarks.memory_rows.scoring import KINDS, Listed, Scored, groups, scored
from launcher.memory.types import GIB

Peers = dict[str, list[tuple[Scored, float | None]]]

ROWS = Path(__file__).parent / "data" / "measured_peaks.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--rows", type=Path, default=ROWS, help="a CSV file of the same columns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--peers", action="store_true", help="other estimators beside ours")
    parser.add_argument("--each", action="store_true", help="every row with its error")
    parser.add_argument("--markdown", action="store_true", help="the table of the docs")
    options = parser.parse_args(arguments)
    try:
        rows = [scored(row) for row in load(options.rows)]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = [row for row in rows if isinstance(row, Scored)]
    listed = [row for row in rows if isinstance(row, Listed)]
    if options.markdown:
        print(markdown(found))
        return 0
    peers = _peers(found) if options.peers else {}
    if options.json:
        print(json.dumps(document(found, listed) | peers_document(peers), indent=2))
    else:
        print(report(found, listed, each=options.each))
        if peers:
            print(peers_report(found, peers))
    return 0


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    pass


def document(found: Sequence[Scored], listed: Sequence[Listed]) -> dict[str, object]:
    """For each group and overall: `n`, `median`, `p95`, `max`, `bias`, `undersized`, `oversized`,
    `margin`; then the verdicts, each row, and the rows that are not scored."""
    scores = {
        name: asdict(result)
        for name, members in groups(found).items()
        if (result := _score(members)) is not None
    }
    return {
        "schema": 1,
        "overall": scores.pop("overall", None),
        "groups": scores,
        "verdicts": asdict(verdicts([row.verdict for row in found if row.verdict is not None])),
        "rows": [
            {
                "line": row.row.line,
                "source": row.row.source,
                "row": row.row.label,
                "metric": row.case.metric,
                "phase": row.phase.name,
                "measured": row.point.measured,
                "estimated": row.point.estimated,
                "error": row.point.error,
                "doubts": list(row.case.doubts),
            }
            for row in found
            if row.point is not None
        ],
        "listed": [
            {
                "line": row.row.line,
                "source": row.row.source,
                "row": row.row.label,
                "reason": row.reason,
            }
            for row in listed
        ],
    }


def report(found: Sequence[Scored], listed: Sequence[Listed], *, each: bool) -> str:
    """Tables for people."""
    lines = [_HEAD, "-" * len(_HEAD)]
    for name, members in groups(found).items():
        result = _score(members)
        if result is not None:
            lines.append(_line(name, result))
    judged = verdicts([row.verdict for row in found if row.verdict is not None])
    out = judged.caught + judged.missed
    lines += [
        "",
        f"out of memory: {judged.caught} of {out} caught, {judged.missed} missed;"
        f" {judged.false_alarms} false alarms on {judged.fitted} rows that fitted",
    ]
    if each:
        lines += ["", *(_each(row) for row in found if row.point is not None)]
    reasons = Counter((row.row.source, row.reason) for row in listed)
    lines += ["", f"{len(listed)} rows are not scored:"]
    lines += [f"  {n:3} {source}: {reason}" for (source, reason), n in sorted(reasons.items())]
    return "\n".join(lines)


def markdown(found: Sequence[Scored]) -> str:
    """The table of scores, as docs/memory-accuracy.md has it."""
    lines = [
        "| rows | n | median | p95 | max | bias | undersized | oversized |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, members in groups(found).items():
        result = _score(members)
        if result is not None:
            cells = [f"{each:.1%}" for each in (result.median, result.p95, result.max)]
            cells += [f"{result.bias:+.1%}", f"{result.undersized:.1%}", f"{result.oversized:.1%}"]
            lines.append(" | ".join([f"| {name}", str(result.n), *cells]) + " |")
    return "\n".join(lines)


def _peers(found: Sequence[Scored]) -> Peers:
    """What other estimators say of the rows with a peak, each row beside its point."""
    from benchmarks.memory_rows.peers import PEERS

    rows = [row for row in found if row.point is not None]
    cases = [row.case for row in rows]
    return {name: list(zip(rows, ask(cases), strict=True)) for name, ask in PEERS.items()}


def _peer_scores(answers: Sequence[tuple[Scored, float | None]]) -> dict[str, Score]:
    points = {
        id(row): Point(row.point.measured, said / GIB)
        for row, said in answers
        if said is not None and row.point is not None
    }
    scores = {
        name: score([points[id(row)] for row in members if id(row) in points])
        for name, members in groups(row for row, _ in answers).items()
    }
    return {name: found for name, found in scores.items() if found is not None}


def peers_document(peers: Peers) -> dict[str, object]:
    """For each estimator and group the same keys as ours; without a margin."""
    if not peers:
        return {}
    return {
        "peers": {
            name: {group: asdict(found) for group, found in _peer_scores(answers).items()}
            for name, answers in peers.items()
        }
    }


def peers_report(found: Sequence[Scored], peers: Peers) -> str:
    """Median absolute error (and rows answered) of each estimator, by group."""
    ours = {name: _score(members) for name, members in groups(found).items()}
    tables: dict[str, Mapping[str, Score | None]] = {
        "launcher": ours,
        **{name: _peer_scores(each) for name, each in peers.items()},
    }
    kinds = [*KINDS, "overall"]
    width = max(map(len, tables))
    lines = ["", "Median error, rows answered, bias; no margins:", ""]
    for kind in kinds:
        lines.append(f"{kind}:")
        for name, scores in tables.items():
            result = scores.get(kind)
            told = "-" if result is None else _short(result)
            lines.append(f"  {name:{width}}  {told}")
    return "\n".join(lines)


def _short(found: Score) -> str:
    return f"{found.median:7.1%}  n {found.n:3}  bias {found.bias:+7.1%}  max {found.max:7.1%}"


def _score(members: Sequence[Scored]) -> Score | None:
    return score([row.point for row in members if row.point is not None])


_HEAD = (
    f"{'':44} {'n':>4} {'median':>7} {'p95':>7} {'max':>7} {'bias':>7} {'margin':>7}"
    f" {'undersized':>10} {'oversized':>9}"
)


def _line(name: str, found: Score) -> str:
    return (
        f"{name:44} {found.n:4} {found.median:7.1%} {found.p95:7.1%} {found.max:7.1%}"
        f" {found.bias:+7.1%} {found.margin:7.1%} {found.undersized:10.1%} {found.oversized:9.1%}"
    )


def _each(row: Scored) -> str:
    point = row.point
    if point is None:
        return ""
    return (
        f"{row.row.line:4} {point.error:+7.2%} {point.measured:7.2f} {point.estimated:7.2f}"
        f" {row.case.metric:9} {row.phase.name:8} {row.row.source} · {row.row.label}"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        # The reader, `head` say, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
