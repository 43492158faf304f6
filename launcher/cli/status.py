from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings, state_text


@click.command()
@click.argument("run", required=False)
@settings.runs_option
@settings.json_option
def command(run: str | None, runs: Path, as_json: bool) -> None:
    """Show how RUN (the newest without a name) stands. It asks, and changes nothing."""
    from launcher.report.signs import of_run
    from launcher.run import act, folder

    found = folder.find(runs, run)
    plan = folder.load_plan(found)
    state, signs = act.look(found, plan), of_run(found, plan)
    if as_json:
        output.data(
            "status",
            {"state": state.state, "run": state.run, "stages": state.stages, "warnings": signs},
        )
    else:
        output.text(state_text.render(state, signs))
