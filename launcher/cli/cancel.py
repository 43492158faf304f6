from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings


@click.command()
@click.argument("run", required=False)
@settings.runs_option
@settings.json_option
def command(run: str | None, runs: Path, as_json: bool) -> None:
    """End the jobs of RUN (the newest without a name). `launcher resume` goes on with it."""
    from launcher.run import act, folder

    found = folder.find(runs, run)
    ended = act.cancel(found, folder.load_plan(found))
    if as_json:
        output.data("cancelled", {"run": found.root.name, "stages": ended})
    elif ended:
        output.text(f"{found.root.name}: cancelled {', '.join(ended)}")
    else:
        output.text(f"{found.root.name}: nothing was running or waiting")
