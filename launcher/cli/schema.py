from __future__ import annotations

import json

import click

from launcher.cli import output


@click.command()
def command() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from launcher.recipe.schema import json_schema

    output.text(json.dumps(json_schema(), indent=1))
