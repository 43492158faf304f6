from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import settings


@click.command()
@click.argument("run", required=False)
@click.option(
    "--every",
    type=click.FloatRange(min=1),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How often to advance the run.",
)
@settings.runs_option
def command(run: str | None, every: float, runs: Path) -> None:
    """Stay with RUN (the newest without a name) and advance it until nothing is left to do.

    Ctrl-C leaves the run alone. Exit 5 when a stage failed for good.
    """
    from launcher.cli import follow
    from launcher.run import folder

    found = folder.find(runs, run)
    follow.wait(found, folder.load_plan(found), every=every)
