"""The reasons of a run's stages as text."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.cli.output import printable
from launcher.run.state import RunState
from launcher.run.why import Reason, Tried


def render(state: RunState, reasons: Sequence[Reason]) -> str:
    """A paragraph a stage, under the run's own line."""
    paragraphs = ["\n".join(_lines(reason)) for reason in reasons]
    return "\n\n".join([f"{printable(state.run)}: {state.state}", *paragraphs])


def _lines(reason: Reason) -> list[str]:
    lines = [f"{reason.stage}: {reason.why}"]
    if reason.next:
        by = f" ({reason.command})" if reason.command else ""
        lines.append(f"  next: {reason.next}{by}")
    lines += [f"  {_attempt(each)}" for each in reason.attempts]
    lines += [f"    {line}" for line in reason.traceback]
    return [printable(line) for line in lines]


def _attempt(tried: Tried) -> str:
    rung = f", rung {tried.rung}" if tried.rung else ""
    what = f" by {tried.failed}" if tried.failed else ""
    answer = f", answer: {tried.answer}" if tried.answer else ""
    message = f" – {tried.message}" if tried.message else ""
    steps = f"step {tried.began_at} → {tried.reached}"
    head = f"attempt {tried.number}: job {tried.job_id}{rung}, {steps}, {tried.outcome}"
    return f"{head}{what}{answer}{message}"
