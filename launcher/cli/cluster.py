from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import output, settings


@click.group()
def command() -> None:
    """Cluster profiles: what the machines offer, for plans."""


@command.command("list")
@settings.json_option
def list_(as_json: bool) -> None:
    """List the shipped profiles."""
    from launcher.cluster.profile import list_profiles

    names = list(list_profiles())
    if as_json:
        output.data("profiles", names)
    else:
        output.text("\n".join(names))


@command.command()
@click.option("--name", default="this-cluster", show_default=True, help="What to call it.")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Write it here.")
@click.option("--probe", is_flag=True, help="Ask nvidia-smi in a job for memory not known.")
def discover(name: str, target: Path | None, probe: bool) -> None:
    """Write a profile of the Slurm cluster at hand, from sinfo and scontrol.

    Slurm does not tell the memory of a GPU. Where its type's name does not either, the profile says
    null, and plans refuse the type until you (or --probe) fill it in.
    """
    from launcher.cluster.profile import dump_profile
    from launcher.scheduler import discover as discovery
    from launcher.scheduler import shell

    found = discovery.discover(shell.run, name)
    if probe:
        found = discovery.probe(shell.run, found)
    text = dump_profile(found)
    if target is None:
        output.text(text.rstrip())
    else:
        target.write_text(text)
        output.note(f"wrote {target}; plan with --cluster {target}")
    for gpu, facts in found.gpus.items():
        if facts.memory_gib is None:
            output.note(f"memory of {gpu} is not known: fill in gpus.{gpu}.memory_gib, or --probe")
