from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import agreement, installed, output, settings, trl_config
from launcher.errors import UsageError

if TYPE_CHECKING:
    from launcher.recipe.folder import Report


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@trl_config.method_option
@trl_config.accelerate_option
@settings.json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    method: str | None,
    accelerate: str | None,
    as_json: bool,
) -> None:
    """Check RECIPE and print it whole, with what it extends, the overrides, and the present names
    of keys. Of a folder, say what is made of each recipe and config of TRL in it.

    \b
    launcher validate ppo_7b
    launcher validate --method dpo my_trl_config.yaml
    launcher validate FOLDER
    """
    if Path(recipe).is_dir():
        _folder(Path(recipe), overrides, method, accelerate, as_json)
        return
    from launcher.recipe.document import dump
    from launcher.recipe.understood import understood

    loaded = trl_config.load(recipe, overrides, method, accelerate)
    agreement.check(loaded)
    installed.check(loaded, None, sure=False)
    document = understood(loaded)
    if as_json:
        output.data("recipe", {"name": loaded.name, "recipe": document})
    else:
        output.text(dump(document).rstrip())


def _folder(
    folder: Path,
    overrides: tuple[str, ...],
    method: str | None,
    accelerate: str | None,
    as_json: bool,
) -> None:
    """A line a file; exit code 2 where one is refused."""
    from launcher.recipe.folder import survey

    if overrides:
        raise UsageError("a folder takes no overrides", hint="name one of its files")
    found = list(survey(folder, method, accelerate))
    if not found:
        raise UsageError(f"{folder} holds no .yaml file", hint="name another folder")
    if as_json:
        output.data(
            "configs",
            [
                {
                    "file": each.file,
                    "kind": each.kind,
                    "method": each.method,
                    "result": each.result,
                    "warnings": each.warnings,
                    "errors": each.errors,
                }
                for each in found
            ],
        )
    else:
        rows = [
            (each.file, each.method or each.kind, each.result, _said(each.warnings, each.errors))
            for each in found
        ]
        output.text(output.table(("file", "taken as", "result", "said"), rows))
        counts = Counter(each.result for each in found)
        more = "; all that is said: --json" if any(map(_is_cut, found)) else ""
        output.note("\n" + ", ".join(f"{n} {result}" for result, n in counts.items()) + more)
    if any(each.errors for each in found):
        raise click.exceptions.Exit(UsageError.exit_code)


def _is_cut(report: Report) -> bool:
    """Whether its line says less than there is to say."""
    return len(report.errors) > 1 or len(report.warnings) > (0 if report.errors else 1)


def _said(warnings: tuple[str, ...], errors: tuple[str, ...]) -> str:
    if not errors:
        return f"{len(warnings)} notes" if len(warnings) > 1 else "".join(warnings)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return errors[0] + more
