from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, plan_text, settings, trl_config
from launcher.plan.objective import Objective


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@trl_config.method_option
@trl_config.accelerate_option
@settings.cluster_option
@settings.objective_option
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Write plan.json.")
@click.option("--show-sbatch", is_flag=True, help="Print the exact batch script of each stage.")
@click.option("--explain", is_flag=True, help="Print memory item by item, and what lost and why.")
@settings.runs_option
@settings.json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    method: str | None,
    accelerate: str | None,
    cluster: str | None,
    objective: Objective,
    target: Path | None,
    show_sbatch: bool,
    explain: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Show what RECIPE (a file, a shipped name, or a plan.json) would run. Nothing is submitted.

    \b
    launcher plan ppo_7b --cluster mixed
    launcher plan recipes/sft_7b.yaml stages.sft.train.max_length=4096 -o plan.json
    launcher plan --method dpo my_trl_config.yaml learning_rate=1e-6
    """
    from launcher.cli.prepare import prepare

    prepared = prepare(
        recipe, overrides, cluster, runs, objective, method=method, accelerate=accelerate
    )
    plan_text.show(prepared.plan, runs, show_sbatch=show_sbatch, explain=explain, as_json=as_json)
    if target is not None:
        from launcher.plan.document import plan_to_json

        target.write_text(plan_to_json(prepared.plan))
        output.note(f"\nlauncher submit {target}")
