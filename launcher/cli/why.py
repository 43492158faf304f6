from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings
from launcher.errors import UsageError


@click.command()
@click.argument("run", required=False)
@click.argument("stage", required=False)
@settings.runs_option
@settings.json_option
def command(run: str | None, stage: str | None, runs: Path, as_json: bool) -> None:
    """Tell why each stage of RUN (the newest without a name), or one STAGE, stands as it does.

    What it was built on, what it waits for or failed by, every attempt, what was made of it, and
    what comes next by which command. It asks, and changes nothing.
    """
    from launcher.cli import why_text
    from launcher.run import folder
    from launcher.run.look import look
    from launcher.run.why import reasons

    found = folder.find(runs, run)
    plan = folder.load_plan(found)
    state = look(found, plan)
    told = reasons(found, plan, state)
    if stage is not None:
        names = [each.stage for each in told]
        told = tuple(each for each in told if each.stage == stage)
        if not told:
            raise UsageError(
                f"{found.root.name} has no stage {stage}", hint=f"its stages: {', '.join(names)}"
            )
    if as_json:
        output.data("why", {"run": state.run, "state": state.state, "stages": told})
    else:
        output.text(why_text.render(state, told))
