"""The `launcher` command: verbs are loaded when they are called, errors become exit codes."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from typing import Any, NoReturn

import click

from launcher import __version__
from launcher.cli import output
from launcher.errors import DISK, LauncherError

# Verb → what `launcher --help` says of it.
VERBS = {
    "validate": "Check a recipe and print it as it was understood.",
    "plan": "Show what a recipe would run, and on which machines.",
    "estimate": "Show the memory that training takes, item by item.",
    "submit": "Queue a recipe's stages, or rejoin the run that it already has.",
    "status": "Show how a run stands.",
    "logs": "Print the logs of a run's stages.",
    "cancel": "End a run's jobs.",
    "resume": "Go on with a run that failed or was cancelled.",
    "advance": "Do what a run's failures allow without a person.",
    "watch": "Stay with a run, and advance it, until it ends.",
    "why": "Tell why each stage stands as it does, and what comes next.",
    "list": "List the runs.",
    "report": "Print the results of a run.",
    "recipes": "List the recipes that ship.",
    "calibrate": "Show how far the estimates of past runs were off.",
    "schema": "Print the JSON Schema of recipes.",
    "cluster": "Show the cluster profiles, or write one for this cluster.",
}


GC_THRESHOLD = 100_000
"""New objects between two collections of garbage: more than a plan makes, few for `--wait`."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"launcher.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in VERBS:
            import difflib

            close = difflib.get_close_matches(name, VERBS, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            ctx.fail(f"there is no command `{name}`.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Align language models with TRL on a Slurm cluster, or on this machine.

    \b
    launcher plan ppo_7b --cluster mixed
    launcher submit recipes/tiny/ppo.yaml --wait
    launcher status
    """


def main() -> NoReturn:
    """Run the command line; never returns."""
    os.umask(0o077)
    # Collections while modules load find nothing, and take a sixth of a short command's time.
    gc.set_threshold(GC_THRESHOLD)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows no `×` gets a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        result: Any = cli.main(standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except LauncherError as error:
        output.error(error)
        code = error.exit_code
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        output.silence()
        code = 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        hint = DISK.get(error.errno or 0)
        output.error(LauncherError(f"{place}{error.strerror or error}", hint=hint))
        code = LauncherError.exit_code
    sys.exit(code)


if __name__ == "__main__":
    # A job's script calls it so, from the run's snapshot of the code.
    main()
