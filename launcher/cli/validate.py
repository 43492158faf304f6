from __future__ import annotations

import click

from launcher.cli import output, settings


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@settings.json_option
def command(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check RECIPE and print it whole, with what it extends and the overrides applied."""
    from launcher.recipe.document import dump
    from launcher.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    for warning in loaded.warnings:
        output.note(f"warning: {warning}")
    if as_json:
        output.data("recipe", {"name": loaded.name, "recipe": loaded.resolved})
    else:
        output.text(dump(loaded.resolved).rstrip())
