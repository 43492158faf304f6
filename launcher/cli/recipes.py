from __future__ import annotations

import click

from launcher.cli import output, settings


@click.command()
@settings.json_option
def command(as_json: bool) -> None:
    """List the recipes that ship, and the parts that `extends` takes.

    \b
    launcher plan dpo_7b_lora
    launcher submit guide/rlhf
    """
    from launcher.recipe.shelf import catalogue

    found = catalogue()
    if as_json:
        output.data("recipes", found)
        return
    output.text(
        output.table(
            ("recipe", "what it does"), [(each.name, each.about) for each in found.shelves]
        )
    )
    sizes = [f"{a and f'with {a} '}{' '.join(names)}" for a, names in found.sizes.items()]
    output.text(f"\nSIZE is {'; '.join(sizes)}.")
    output.text("To extend in a recipe of your own:")
    output.text("\n".join(f"  {folder}/  {' '.join(own)}" for folder, own in found.parts.items()))
