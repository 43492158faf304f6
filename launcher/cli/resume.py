from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings


@click.command()
@click.argument("run", required=False)
@click.option("--wait", is_flag=True, help="Stay until the run ends; exit 5 when a stage fails.")
@settings.runs_option
@settings.json_option
def command(run: str | None, wait: bool, runs: Path, as_json: bool) -> None:
    """Go on with RUN (the newest without a name) where it stopped; what is complete stays."""
    from launcher.cli import assets, follow
    from launcher.run import act, folder

    found = folder.find(runs, run)
    plan = folder.load_plan(found)
    assets.bring(plan)
    done = act.submit(found, plan, resume=True)
    follow.announce(found, done, as_json=as_json, made=False)
    if wait:
        follow.wait(found, plan)
    elif not as_json:
        output.note(f"\nlauncher status {found.root.name}")
