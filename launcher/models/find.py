"""Where a model's shape is read from: its folder, the hub's cache on disk, the shipped table, the
recipe, or the hub."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.models.cache import MAIN, snapshot, split
from launcher.models.hub import Hub, download
from launcher.models.read import read_shape
from launcher.models.table import known, names
from launcher.models.types import ModelShape, Source

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class Places:
    """Where shapes are looked for, beside folders and the shipped table."""

    cache: Path | None = None
    """The root of the hub's cache on disk (`hub_cache`)."""
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Hub name → keys of its `config.json`, as a recipe states them."""
    hub: Hub | None = None


def shape_of(reference: str, places: Places | None = None) -> ModelShape:
    """The shape of the model at an existing folder, or of the hub model called `reference`.

    Looked for in the hub's cache, in the shipped table (whose rows are the published files), in
    what the recipe states, and only then on the hub. A revision that neither cache nor recipe knows
    has the table's shape of `main`, since models seldom change their sizes. A folder that holds
    only an adapter has the shape of its base model.

    Raises UsageError where the shape is in none of the places: it is never guessed from the name.
    """
    return _Search(places or Places()).shape(reference, follow=True)


class _Search:
    def __init__(self, places: Places) -> None:
        self.places = places

    def shape(self, reference: str, follow: bool) -> ModelShape:
        folder, cache = Path(reference), self.places.cache
        if folder.is_absolute() or folder.is_dir():
            return self.in_folder(folder, reference, "config.json", follow)
        cached = snapshot(reference, cache) if cache is not None else None
        if cached is not None:
            return self.in_folder(cached, reference, "hub cache", follow)
        shipped = known(reference)
        if shipped is not None:
            return shipped
        stated = self.places.stated.get(reference)
        if stated is not None:
            return read_shape(stated, reference, "recipe")
        main = known(split(reference)[0])
        if main is not None:
            return replace(main, name=reference, of_main=True)
        if not _HUB_NAME.fullmatch(split(reference)[0]):
            raise _unknown(reference, "")
        return self.on_hub(reference, follow)

    def in_folder(self, folder: Path, reference: str, source: Source, follow: bool) -> ModelShape:
        config = folder / "config.json"
        if config.is_file():
            try:
                return read_shape(_load(config), reference, source)
            except UsageError:
                # A family that is not known here, with code of its own: the recipe says what it is.
                if reference not in self.places.stated:
                    raise
                return read_shape(self.places.stated[reference], reference, "recipe")
        adapter = folder / "adapter_config.json"
        if follow and adapter.is_file():
            base = _base(_load(adapter))
            if base is not None:
                return replace(self.shape(base, follow=False), name=reference, adapter=True)
        raise UsageError(
            f"model folder `{reference}` has no config.json",
            hint="give a folder that `save_pretrained` wrote, or a hub name",
        )

    def on_hub(self, reference: str, follow: bool) -> ModelShape:
        hub = self.places.hub
        if hub is None:
            raise _unknown(reference, "")
        try:
            config = download(hub, reference, "config.json")
            adapter = download(hub, reference, "adapter_config.json") if config is None else None
        except UsageError as error:
            raise _unknown(reference, f"; {error.message}", error.hint) from error
        if config is not None:
            return read_shape(config, reference, "hub")
        base = _base(adapter) if follow and adapter is not None else None
        if base is None:
            raise _unknown(reference, f"; on {hub.endpoint} it has no config.json")
        return replace(self.shape(base, follow=False), name=reference, adapter=True)


def _unknown(reference: str, asked: str, hint: str | None = None) -> UsageError:
    listed = {name.lower(): name for name in names()}
    name, revision = split(reference)
    close = difflib.get_close_matches(name.lower(), listed, n=1, cutoff=0.7)
    meant = f"did you mean {listed[close[0]]}? Else " if close else ""
    way = "give its folder, or state its sizes under the recipe's `shapes:`"
    at = "" if revision == MAIN else f" --revision {revision}"
    download = f"download it once (`hf download {name} config.json{at}`), "
    return UsageError(
        f"the sizes of model `{reference}` are not known: it is no folder here, not in the hub's"
        f" cache, and not in the shipped table{asked}",
        hint=hint if hint and not close else f"{meant}{download}{way}",
    )


def _base(adapter: Mapping[str, Any]) -> str | None:
    base = adapter.get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def _load(path: Path) -> Mapping[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds no JSON object", hint="give a folder of a saved model")
    return loaded
