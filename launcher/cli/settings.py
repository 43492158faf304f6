"""Options that several verbs share, and where their defaults come from: flag, then environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.cluster.types import Cluster

if TYPE_CHECKING:
    from launcher.models.find import Places

F = TypeVar("F", bound=Callable[..., Any])

RUNS_VARIABLE = "LAUNCHER_RUNS"
CLUSTER_VARIABLE = "LAUNCHER_CLUSTER"
LEDGER_VARIABLE = "LAUNCHER_LEDGER"


def runs_option(function: F) -> F:
    option = click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        envvar=RUNS_VARIABLE,
        show_default=True,
        help=f"Folder of the runs (${RUNS_VARIABLE}).",
    )
    return option(function)


def cluster_option(function: F) -> F:
    option = click.option(
        "--cluster",
        envvar=CLUSTER_VARIABLE,
        help="Cluster profile: a shipped name, a file, or `local` for this machine "
        f"(${CLUSTER_VARIABLE}). Default: the Slurm at hand, else this machine.",
    )
    return option(function)


def objective_option(function: F) -> F:
    option = click.option(
        "--objective",
        type=click.Choice(["cost", "time", "gpus", "start"]),
        default="cost",
        show_default=True,
        help="What the plan is to be good at: GPU-hours × price, the shortest stages, the fewest "
        "GPUs, or the earliest start (asks Slurm what is free).",
    )
    return option(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def places(stated: Mapping[str, Mapping[str, Any]]) -> Places:
    """Where the shapes of models are looked for; `stated` is what the recipe says of them."""
    from launcher.models.cache import hub_cache
    from launcher.models.find import Places
    from launcher.models.hub import hub_of

    home = Path.home()
    return Places(hub_cache(os.environ, home), stated, hub_of(os.environ, home))


def cluster(name: str | None) -> Cluster:
    """The cluster to plan for, with the ledger that the environment names, if it does.

    Raises UsageError, SchedulerUnavailable.
    """
    found = _cluster(name)
    ledger = os.environ.get(LEDGER_VARIABLE)
    return replace(found, ledger=str(Path(ledger).resolve())) if ledger else found


def _cluster(name: str | None) -> Cluster:
    if name is not None and name != "local":
        from launcher.cluster.profile import load_profile

        return load_profile(name)
    import shutil

    from launcher.scheduler import shell

    if name is None and shutil.which("sbatch"):
        from launcher.scheduler.discover import discover

        return discover(shell.run, "this-cluster")
    from launcher.scheduler.local_machine import local_cluster

    return local_cluster(shell.run)
