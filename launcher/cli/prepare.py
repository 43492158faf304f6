"""From what the user named (a recipe or a plan.json) to a plan: shared by `plan` and `submit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from launcher.cli import agreement, installed, output, settings, trl_config
from launcher.cluster.availability import Availability
from launcher.cluster.types import Cluster
from launcher.errors import DoesNotFit, SchedulerUnavailable, UsageError
from launcher.plan.evidence import Evidence
from launcher.plan.objective import Objective
from launcher.plan.trust import trusting
from launcher.plan.types import Plan


@dataclass(frozen=True)
class Prepared:
    plan: Plan
    recipe: Mapping[str, Any]
    """The resolved recipe, to be kept in the run."""


def prepare(
    source: str,
    overrides: Sequence[str],
    cluster: str | None,
    runs: Path,
    objective: Objective = "cost",
    *,
    method: str | None = None,
    accelerate: str | None = None,
    trust_remote_code: bool = False,
) -> Prepared:
    """Read, check and plan, with what the runs below `runs` and the site's ledger have measured.

    With a `method`, `source` is a config of TRL. With `trust_remote_code`, code beside the models
    may run. Warnings go to stderr. Raises UsageError, DoesNotFit.
    """
    if source.endswith(".json") and method is None:
        prepared = _stored(Path(source), overrides, objective)
    else:
        prepared = _made(source, overrides, cluster, runs, objective, method, accelerate)
    plan = trusting(prepared.plan, trust_remote_code)
    return Prepared(plan, prepared.recipe)


def _made(
    source: str,
    overrides: Sequence[str],
    cluster: str | None,
    runs: Path,
    objective: Objective,
    method: str | None,
    accelerate: str | None,
) -> Prepared:
    from launcher.models.find import shape_of
    from launcher.plan.make import make_plan
    from launcher.recipe.fields import trl_version

    recipe = trl_config.load(source, overrides, method, accelerate)
    agreement.check(recipe)
    shapes = partial(shape_of, places=settings.places(recipe.shapes))
    machines = settings.cluster(cluster)
    installed.check(recipe, machines.python)
    try:
        plan = make_plan(
            recipe,
            machines,
            shapes,
            trl_version=trl_version(),
            evidence=_evidence(runs, machines.ledger),
            objective=objective,
            availability=_available(machines) if objective == "start" else None,
        )
    except (UsageError, DoesNotFit) as error:
        raise type(error)(recipe.placed(error.message), hint=error.hint) from error
    return Prepared(plan, recipe.resolved)


def _evidence(runs: Path, ledger: str | None) -> Evidence | None:
    """What is measured below `runs` and at `ledger`; what reads receipts is loaded for some."""
    if ledger is None and not runs.is_dir():
        return None
    from launcher.run.evidence import gather

    return gather(runs, ledger)


def _available(machines: Cluster) -> Availability | None:
    """What is free now; None, with a note, where nobody knows."""
    from launcher.scheduler import availability, shell

    try:
        if machines.engine != "slurm":
            raise SchedulerUnavailable(f"{machines.name} has no queue")
        return availability.ask(shell.run, machines, datetime.now())
    except SchedulerUnavailable as error:
        output.note(f"note: what is free now is not known: {error.message}")
        return None


def _stored(path: Path, overrides: Sequence[str], objective: Objective) -> Prepared:
    from launcher.plan.document import plan_from_json

    if overrides or objective != "cost":
        raise UsageError(
            "a plan takes no overrides and no objective",
            hint="give them when the plan is made from its recipe",
        )
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8") from error
    plan = plan_from_json(text)
    return Prepared(plan, {"name": plan.name, "plan": "given as plan.json"})
