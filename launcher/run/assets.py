"""What a chain needs from the hub and this machine's cache does not have: fetched before queueing.

Nodes ask nobody (`launcher.worker.network`), unless the profile's `env` says that they may. The
fetching is a process of the training environment's own, for a login node needs no hub library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from launcher.errors import LauncherError
from launcher.models import cache
from launcher.plan.inputs import hub_names
from launcher.plan.types import Plan, StagePlan
from launcher.scheduler import shell

# Of the submitting shell's variables jobs see few; these would name a cache that no job looks into.
_UNSEEN = ("HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE")
_OFF = ("", "0", "OFF", "NO", "FALSE")


@dataclass(frozen=True)
class Asset:
    """A model or data set on the hub."""

    kind: Literal["model", "tokenizer", "data"]
    name: str
    config: str | None = None
    """Of a data set, the configuration."""
    code: bool = False
    """Of a model, whether its own code comes along."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.config})" if self.config else "")


def missing(plan: Plan) -> tuple[Asset, ...]:
    """What the stages that run name on the hub, and the cache that their jobs will see has not.

    Empty where nodes may ask the hub themselves.
    """
    environment = _environment(plan)
    hub = cache.hub_cache(environment, Path.home())
    data = cache.data_cache(environment, Path.home())
    wanted = dict.fromkeys(
        asset
        for planned in plan.stages
        if planned.runs and not _asks(plan, planned)
        for asset in _assets(plan, planned.name)
    )
    return tuple(asset for asset in wanted if not _is_there(asset, hub, data))


def _assets(plan: Plan, stage: str) -> Iterator[Asset]:
    for kind, name, config in hub_names(plan, stage):
        yield Asset(kind, name, config, code=plan.trust_remote_code and kind != "data")


def fetch(plan: Plan, lacking: tuple[Asset, ...]) -> None:
    """Bring them into the cache, one launcher at a time each. Raises LauncherError, with the way
    out, where the hub cannot be asked or has one of them not."""
    python = plan.cluster.python or sys.executable
    text = json.dumps([asdict(asset) for asset in lacking])
    # What was fetched before counts for nothing here: the hub is asked, whatever nodes may do.
    environment = {k: v for k, v in _environment(plan).items() if not k.endswith("_OFFLINE")}
    if _says(os.environ.get("HF_HUB_OFFLINE")):
        raise _not_here(lacking, "HF_HUB_OFFLINE is set, so the hub is not asked")
    try:
        shell.converse([python, "-m", "launcher.worker.fetch"], text, environment)
    except LauncherError as error:
        raise _not_here(lacking, error.message) from error


def _not_here(lacking: tuple[Asset, ...], why: str) -> LauncherError:
    names = ", ".join(str(asset) for asset in lacking)
    return LauncherError(
        f"not in the hub's cache, and could not be fetched: {names}: {why}",
        hint="where the hub can be reached, `hf download NAME` (of NAME@REVISION with `--revision`)"
        " into the cache that nodes see (HF_HOME), or name a folder in the recipe; where nodes"
        ' reach the hub themselves, put `HF_HUB_OFFLINE: "0"` into the env of the cluster profile',
    )


def _environment(plan: Plan) -> dict[str, str]:
    """This process's variables, as far as they decide where the jobs of the plan look."""
    own = dict(os.environ)
    if plan.cluster.engine == "slurm":
        own = {name: value for name, value in own.items() if name not in _UNSEEN}
    return {**own, **plan.cluster.env}


def _asks(plan: Plan, planned: StagePlan) -> bool:
    """Whether the stage's job may ask the hub."""
    said: Mapping[str, str] = {**plan.cluster.env, **planned.stage.env}
    if plan.cluster.engine == "local":
        said = {**os.environ, **said}
    return "HF_HUB_OFFLINE" in said and not _says(said["HF_HUB_OFFLINE"])


def _says(value: str | None) -> bool:
    return value is not None and value.upper() not in _OFF


def _is_there(asset: Asset, hub: Path, data: Path) -> bool:
    if asset.kind == "data":
        folder = data / asset.name.replace("/", "___")
        return (folder / asset.config).is_dir() if asset.config else folder.is_dir()
    return cache.holds(asset.name, hub, weights=asset.kind == "model", code=asset.code)
