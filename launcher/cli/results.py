"""What a run came to: its stages' time and memory, and what the evaluation found."""

from __future__ import annotations

from launcher.cli import state_text
from launcher.cli.output import gib, table
from launcher.plan.types import Plan
from launcher.records import attempts, files
from launcher.records.measurement import STEP
from launcher.records.paths import RunPaths
from launcher.report import evaluation, signs
from launcher.run.state import RunState


def render(run: RunPaths, plan: Plan, state: RunState) -> str:
    """The table of stages, what they took, then each evaluation that is there."""
    parts = [state_text.render(state, signs.of_run(run, plan))]
    measured = _measured(run, plan)
    if measured:
        parts.append(measured)
    for stage in plan.stages:
        found = files.read_json(run.stage(stage.name).evaluation, dict)
        if found is not None:
            parts.append(evaluation.render_text(found))
    return "\n\n".join(parts)


def _measured(run: RunPaths, plan: Plan) -> str:
    """Each stage's estimate beside what its last attempt measured, and where its time went."""
    rows = []
    for planned in plan.stages:
        receipts = attempts.read(run.stage(planned.name).attempts)
        if not receipts or receipts[-1].measured is None:
            continue
        phases, peaks = receipts[-1].measured.phases, receipts[-1].peak_bytes
        metric = "device reserved" if "device reserved" in peaks else "host"
        highest = max(phases, key=lambda name: phases[name].peak_bytes.get(metric, 0), default="–")
        rung = receipts[-1].rung if receipts[-1].rung <= len(planned.ladder) else 0
        peak = planned.at(rung).estimate.peak
        step = phases.get(STEP)
        parts = (
            f"{name} {phases[name].median_s:.2f} s"
            for name in ("rollout", "score", "update", "optimizer step")
            if name in phases
        )
        rows.append(
            (
                planned.name,
                gib(peak.total if metric == "host" else peak.reserved),
                gib(peaks.get(metric)),
                highest,
                f"{step.median_s:.2f} s" if step else "–",
                f"{step.longest_s:.2f} s" if step else "–",
                ", ".join(parts),
            )
        )
    header = ("stage", "estimate", "measured", "in", "median step", "longest", "")
    return table(header, rows) if rows else ""
