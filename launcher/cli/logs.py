from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] [STAGE]")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, until the stage ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Which task."
)
@settings.runs_option
def command(words: tuple[str, ...], follow: bool, tail: int | None, rank: int, runs: Path) -> None:
    """Print the log of STAGE (the one that runs, or ran last) of RUN (the newest).

    One word is a stage of the newest run if there is one of that name, else a run.
    """
    from launcher.run import folder, log

    run, stage = log.choose(runs, words)
    plan = folder.load_plan(run)
    for piece in log.read(run, plan, stage, rank=rank, tail=tail, follow=follow):
        output.text(piece)
