from __future__ import annotations

import sys
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
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop, like `launcher plan`.")
@click.option("--show-sbatch", is_flag=True, help="With --dry-run: print the batch scripts.")
@click.option("--new", is_flag=True, help="Make another run, though the recipe has one.")
@click.option(
    "--verify",
    is_flag=True,
    help="Stay until Slurm has surely kept the jobs (6 s), and send again what it lost.",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Let code run that lies beside the models (auto_map): it can do all that you can.",
)
@click.option("--wait", is_flag=True, help="Stay until the run ends; exit 5 when a stage fails.")
@settings.runs_option
@settings.json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    method: str | None,
    accelerate: str | None,
    cluster: str | None,
    objective: Objective,
    yes: bool,
    dry_run: bool,
    show_sbatch: bool,
    new: bool,
    verify: bool,
    trust_remote_code: bool,
    wait: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Queue the stages of RECIPE (a file, a shipped name, or a plan.json) as a chain of jobs.

    The same command again rejoins the run that the recipe has: it shows a running one, goes on
    with one that was interrupted or failed, and says so when it is complete.

    \b
    launcher submit recipes/tiny/ppo.yaml --wait
    launcher submit ppo_7b stages.ppo.train.learning_rate=1e-6 --cluster mixed
    launcher submit --method dpo my_trl_config.yaml --accelerate zero3.yaml
    """
    from launcher.cli.prepare import prepare
    from launcher.plan.runnable import check_runnable

    prepared = prepare(
        recipe,
        overrides,
        cluster,
        runs,
        objective,
        method=method,
        accelerate=accelerate,
        trust_remote_code=trust_remote_code,
    )
    check_runnable(prepared.plan)
    if dry_run:
        plan_text.show(prepared.plan, runs, show_sbatch=show_sbatch, explain=False, as_json=as_json)
        return
    from launcher.cli import assets, follow
    from launcher.run import act, folder

    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        output.note(plan_text.render(prepared.plan))
        click.confirm("\nSubmit?", default=True, abort=True, err=True)
    folder.check(runs, prepared.plan)
    assets.bring(prepared.plan)
    run, made = folder.create(runs, prepared.plan, prepared.recipe, new=new)
    plan = folder.load_plan(run)
    done = act.submit(run, plan)
    if verify:
        done = act.verify(run, plan, done)
    follow.announce(run, done, as_json=as_json, made=made)
    if wait:
        follow.wait(run, plan, quiet=as_json)
    elif not as_json:
        name = run.root.name
        output.note(f"\nlauncher status {name}\nlauncher logs -f {name}\nlauncher cancel {name}")
