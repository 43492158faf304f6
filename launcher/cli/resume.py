from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings


@click.command()
@click.argument("run", required=False)
@click.option(
    "--from",
    "first",
    metavar="STAGE",
    help="Run STAGE and all after it again, complete or not; what they left is kept aside.",
)
@click.option(
    "--accept-change",
    is_flag=True,
    help="Go on though model, data or code are not what an earlier attempt began with.",
)
@click.option("--wait", is_flag=True, help="Stay until the run ends; exit 5 when a stage fails.")
@settings.runs_option
@settings.json_option
def command(
    run: str | None,
    first: str | None,
    accept_change: bool,
    wait: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Go on with RUN (the newest without a name) where it stopped; what is complete stays."""
    from launcher.cli import assets, follow
    from launcher.run import act, folder

    found = folder.find(runs, run)
    plan = folder.load_plan(found)
    assets.bring(plan)
    done = act.resume(found, plan, first=first, accept_change=accept_change)
    follow.announce(found, done, as_json=as_json, made=False)
    if wait:
        follow.wait(found, plan)
    elif not as_json:
        output.note(f"\nlauncher status {found.root.name}")
