"""Checks of pairs of answers that a training could not tell of: same answers, repeats, lengths."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from launcher.records import pairs
from launcher.records.pairs import Pairs
from launcher.worker.context import Context

_BIASED = 0.6
"""Share of pairs in which one side is the longer, from which on a model may learn the length."""


def examine(context: Context, rows: Any) -> None:
    """Look through the rows, where they are pairs; print what was found, and leave it for
    `status` and `report`."""
    if not context.is_main or not {"chosen", "rejected"} <= set(rows.column_names):
        return
    columns = [c for c in ("prompt", "chosen", "rejected") if c in rows.column_names]
    found = of_rows(rows.select_columns(columns))
    for warning in found.warnings:
        print(f"warning: {warning}", flush=True)
    pairs.write(context.paths, found)


def of_rows(rows: Iterable[dict[str, Any]]) -> Pairs:
    """What is found in rows of `chosen` and `rejected`, texts or messages, `prompt` or none."""
    seen: set[int] = set()
    identical = repeated = backwards = longer_chosen = longer_rejected = count = 0
    total_chosen = total_rejected = 0
    for row in rows:
        count += 1
        prompt, chosen, rejected = (row.get(c) for c in ("prompt", "chosen", "rejected"))
        if chosen == rejected:
            identical += 1
        elif _key(prompt, chosen, rejected) in seen:
            repeated += 1
        elif _key(prompt, rejected, chosen) in seen:
            backwards += 1
        seen.add(_key(prompt, chosen, rejected))
        lengths = _length(chosen), _length(rejected)
        longer_chosen += lengths[0] > lengths[1]
        longer_rejected += lengths[0] < lengths[1]
        total_chosen += lengths[0]
        total_rejected += lengths[1]
    found = Pairs(
        rows=count,
        identical=identical,
        repeated=repeated,
        reversed=backwards,
        longer_chosen=longer_chosen,
        longer_rejected=longer_rejected,
        mean_chosen=total_chosen / max(count, 1),
        mean_rejected=total_rejected / max(count, 1),
    )
    return Pairs(**{**vars(found), "warnings": tuple(_warnings(found))})


def _warnings(found: Pairs) -> Iterable[str]:
    of = f"of {found.rows} pairs"
    if found.identical:
        yield f"in {found.identical} {of} chosen and rejected are the same: they teach nothing"
    if found.repeated:
        yield f"{found.repeated} {of} stand in an earlier row too"
    if found.reversed:
        yield f"{found.reversed} {of} stand in an earlier row the other way round"
    decided = found.longer_chosen + found.longer_rejected
    for side, longer in (("chosen", found.longer_chosen), ("rejected", found.longer_rejected)):
        # Beyond what three standard deviations of a fair coin would give.
        chance = 0.5 + 1.5 / math.sqrt(decided) if decided else 1.0
        if longer > max(_BIASED, chance) * decided:
            yield (
                f"the {side} answer is the longer one in {longer} {of} (a chosen one has "
                f"{found.mean_chosen:.0f} characters on average, a rejected one "
                f"{found.mean_rejected:.0f}): a model may learn the length"
            )


def _key(*parts: Any) -> int:
    return hash(json.dumps(parts, sort_keys=True, default=str))


def _length(answer: Any) -> int:
    """Characters of a text or of a conversation's messages."""
    if isinstance(answer, str):
        return len(answer)
    return sum(len(str(message.get("content") or "")) for message in answer or ())
