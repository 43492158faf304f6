from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from launcher.cli import output, settings
from launcher.errors import LauncherError


@click.command()
@settings.runs_option
@settings.json_option
def command(runs: Path, as_json: bool) -> None:
    """List the runs, the newest last."""
    from launcher.run import act, folder, state

    slurm: state.View | None = None
    rows: list[dict[str, Any]] = []
    for run in folder.every(runs):
        try:
            plan = folder.load_plan(run)
        except LauncherError as error:
            output.note(f"warning: {run.root.name}: {error.message}")
            continue
        if plan.cluster.engine == "local":
            view = act.view(run, plan)
        else:
            # One query tells of all runs.
            view = slurm = slurm or act.view(run, plan)
        found = state.read(run, plan, view)
        done = sum(stage.state in ("given", "complete") for stage in found.stages)
        rows.append(
            {
                "run": run.root.name,
                "state": found.state,
                "complete": done,
                "stages": len(found.stages),
                "cluster": plan.cluster.name,
                "made": run.plan.stat().st_mtime,
            }
        )
    if as_json:
        output.data("runs", rows)
        return
    cells = [
        (
            str(row["run"]),
            str(row["state"]),
            f"{row['complete']} of {row['stages']}",
            str(row["cluster"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["made"])),
        )
        for row in rows
    ]
    output.text(output.table(("run", "state", "stages", "cluster", "made"), cells))
