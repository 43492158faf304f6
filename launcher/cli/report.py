from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, results, settings


@click.command()
@click.argument("run", required=False)
@settings.runs_option
@settings.json_option
def command(run: str | None, runs: Path, as_json: bool) -> None:
    """Print the results of RUN (the newest without a name)."""
    from launcher.records import files
    from launcher.report import signs
    from launcher.run import act, folder

    found = folder.find(runs, run)
    plan = folder.load_plan(found)
    state = act.look(found, plan)
    if as_json:
        evaluations = {
            stage.name: files.read_json(found.stage(stage.name).evaluation, dict)
            for stage in plan.stages
        }
        output.data("report", {"run": state.run, "stages": state.stages, "evaluations": {
            name: value for name, value in evaluations.items() if value is not None
        }, "warnings": signs.of_run(found, plan)})  # fmt: skip
    else:
        output.text(results.render(found, plan, state))
