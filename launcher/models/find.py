"""Where a model's shape is read from: its folder, the hub's cache on disk, or the shipped table."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.models.read import read_shape
from launcher.models.table import table
from launcher.models.types import ModelShape


def shape_of(reference: str, cache: Path | None = None) -> ModelShape:
    """The shape of the model at an existing folder, or of the hub model called `reference`.

    `cache` is the root of the hub's cache (`hub_cache`); None leaves it out. A folder that holds
    only an adapter has the shape of its base model. Reads files, no network.

    Raises UsageError where the shape is in none of the places: it is never guessed from the name.
    """
    return _shape(reference, cache, follow=True)


def hub_cache(environment: Mapping[str, str], home: Path) -> Path:
    """The root of the hub's cache as the environment sets it (huggingface_hub's own rules)."""
    if path := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(path)
    if path := environment.get("HF_HOME"):
        return Path(path) / "hub"
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else home / ".cache") / "huggingface" / "hub"


def _shape(reference: str, cache: Path | None, follow: bool) -> ModelShape:
    folder = Path(reference)
    if folder.is_absolute() or folder.is_dir():
        return _in_folder(folder, reference, "config.json", cache, follow)
    snapshot = _snapshot(reference, cache) if cache is not None else None
    if snapshot is not None:
        return _in_folder(snapshot, reference, "hub cache", cache, follow)
    known = {name.lower(): shape for name, shape in table().items()}
    shape = known.get(reference.lower())
    if shape is not None:
        return shape
    close = difflib.get_close_matches(reference.lower(), known, n=1, cutoff=0.7)
    meant = f"did you mean {known[close[0]].name}? Else " if close else ""
    raise UsageError(
        f"the sizes of model `{reference}` are not known: it is no folder here, not in the hub's"
        " cache, and not in the shipped table",
        hint=f"{meant}download it once (`hf download {reference} config.json`) or give its folder",
    )


def _in_folder(
    folder: Path, reference: str, source: str, cache: Path | None, follow: bool
) -> ModelShape:
    config = folder / "config.json"
    if config.is_file():
        return read_shape(_load(config), name=reference, source=source)
    adapter = folder / "adapter_config.json"
    if follow and adapter.is_file():
        base = _load(adapter).get("base_model_name_or_path")
        if isinstance(base, str) and base:
            return replace(_shape(base, cache, follow=False), name=reference)
    raise UsageError(
        f"model folder `{reference}` has no config.json",
        hint="give a folder that `save_pretrained` wrote, or a hub name",
    )


def _snapshot(reference: str, cache: Path) -> Path | None:
    """The folder of the newest known revision in the cache, if it has a config."""
    repository = cache / ("models--" + reference.replace("/", "--"))
    snapshots = repository / "snapshots"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        folders = [snapshots / revision]
    except OSError:
        folders = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
    for folder in folders:
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder
    return None


def _load(path: Path) -> Mapping[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds no JSON object", hint="give a folder of a saved model")
    return loaded
