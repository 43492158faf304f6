"""What a run came to: its stages' time and memory, and what the evaluation found."""

from __future__ import annotations

from launcher.cli import state_text
from launcher.plan.types import Plan
from launcher.records import files
from launcher.records.paths import RunPaths
from launcher.report import evaluation
from launcher.run.state import RunState


def render(run: RunPaths, plan: Plan, state: RunState) -> str:
    """The table of stages, then each evaluation that is there."""
    parts = [state_text.render(state)]
    for stage in plan.stages:
        found = files.read_json(run.stage(stage.name).evaluation, dict)
        if found is not None:
            parts.append(evaluation.render_text(found))
    return "\n\n".join(parts)
