from __future__ import annotations

import os
from pathlib import Path

import click

from launcher.cli import output, settings


@click.command()
@click.argument("run", required=False)
@click.option(
    "--ended",
    metavar="JOB",
    help="For a job's own script: that its program is over, and did not end well.",
)
@settings.runs_option
@settings.json_option
def command(run: str | None, ended: str | None, runs: Path, as_json: bool) -> None:
    """Do what the failures of RUN (the newest without a name) allow without a person.

    What failed for a reason that may pass is submitted again, as often as its class of failure
    allows; what waits for a stage that ended for good is taken out of the queue. It may be called
    at any time and as often as one likes.
    """
    from launcher.cli import follow
    from launcher.run import act, folder

    found = folder.find(runs, run)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0")) if ended else 0
    done = act.advance(found, folder.load_plan(found), ended=ended, restarts=restarts)
    if as_json:
        output.data("advanced", {"run": found.root.name, "stages": done})
    else:
        output.text(f"{found.root.name}\n{follow.table(done)}")
