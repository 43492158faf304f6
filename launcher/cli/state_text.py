"""The state of a run as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from launcher.cli.output import duration, gib, printable, table
from launcher.report import headline
from launcher.report.signs import Sign
from launcher.run.state import RunState, StageState


def render(state: RunState, signs: Mapping[str, Sequence[Sign]] | None = None) -> str:
    """One line a stage, under the run's own, and one for each sign of trouble."""
    header = ("stage", "method", "state", "job", "time", "peak memory", "")
    rows = [
        (
            stage.name,
            stage.method,
            stage.state,
            stage.job_id or "–",
            duration(elapsed(stage)),
            gib(peak(stage)),
            note(stage),
        )
        for stage in state.stages
    ]
    warnings = [
        f"! {stage}: {sign.text}" for stage, found in (signs or {}).items() for sign in found
    ]
    parts = [f"{printable(state.run)}: {state.state}", table(header, rows), *warnings]
    return "\n\n".join(parts)


def elapsed(stage: StageState) -> float | None:
    """Seconds of the last attempt so far."""
    if stage.started is None:
        return None
    return (stage.ended or time.time()) - stage.started


def peak(stage: StageState) -> float | None:
    """Bytes: of the GPU where there is one, else of the process."""
    peaks = stage.peak_bytes or {}
    return peaks.get("device reserved", peaks.get("host"))


def note(stage: StageState) -> str:
    """What there is to say beside the state."""
    progress = stage.progress
    if stage.state == "running" and progress is not None:
        total = f"/{progress.total}" if progress.total else ""
        loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
        reward = "" if progress.reward is None else f", reward {progress.reward:.4g}"
        step = f" {progress.step}{total}" if progress.total or progress.step else ""
        return f"{progress.phase}{step}{loss}{reward}"
    if stage.state == "complete" and stage.metrics:
        return headline.text(headline.headline(stage.metrics))
    starts = f" (expected at {stage.starts})" if stage.starts else ""
    failed = f"{stage.failed}: " if stage.failed else ""
    then = "; is tried again" if stage.failed and stage.answer != "end" else ""
    return failed + stage.reason + starts + then
