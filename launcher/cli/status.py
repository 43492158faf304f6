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
    from launcher.run import act, folder

    found = folder.find(runs, run)
    state = act.look(found, folder.load_plan(found))
    if as_json:
        output.data("status", {"state": state.state, "run": state.run, "stages": state.stages})
    else:
        output.text(state_text.render(state))
