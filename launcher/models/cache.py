"""The hub's cache on this machine: where it is, and what it has of a model or data set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["model", "data"]

MAIN = "main"
"""The revision that a name alone means."""
_FOLDERS: Mapping[Kind, str] = {"model": "models--", "data": "datasets--"}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def split(reference: str) -> tuple[str, str]:
    """The name and the revision of `NAME@REVISION`."""
    name, _, revision = reference.partition("@")
    return name, revision or MAIN


def hub_cache(environment: Mapping[str, str], home: Path) -> Path:
    """The root of the hub's cache as the environment sets it (huggingface_hub's own rules)."""
    if path := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(path)
    return _root(environment, home) / "hub"


def data_cache(environment: Mapping[str, str], home: Path) -> Path:
    """Where `datasets` keeps what it has read from the hub, by its own rules."""
    if path := environment.get("HF_DATASETS_CACHE"):
        return Path(path)
    return _root(environment, home) / "datasets"


def _root(environment: Mapping[str, str], home: Path) -> Path:
    if path := environment.get("HF_HOME"):
        return Path(path)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else home / ".cache") / "huggingface"


def commit(reference: str, cache: Path, kind: Kind = "model") -> str | None:
    """The commit that the cache has for the revision; None where it has none."""
    name, revision = split(reference)
    repository = _repository(name, cache, kind)
    if _COMMIT.fullmatch(revision):
        return revision if (repository / "snapshots" / revision).is_dir() else None
    try:
        text = (repository / "refs" / revision).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text.strip() or None


def committed(reference: str, cache: Path) -> Path | None:
    """The folder of the model's revision in the cache, whatever it has of it."""
    found = commit(reference, cache)
    if found is None:
        return None
    return _repository(split(reference)[0], cache, "model") / "snapshots" / found


def snapshot(reference: str, cache: Path) -> Path | None:
    """The folder of a model in the cache, if it has a config: of its revision, or, where none is
    asked for and the cache does not know which is `main`, of any."""
    name, revision = split(reference)
    found = committed(reference, cache)
    folders = [found] if found is not None else []
    if not folders and revision == MAIN:
        snapshots = _repository(name, cache, "model") / "snapshots"
        folders = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
    for folder in folders:
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder
    return None


def folder_of(reference: str, cache: Path | None) -> Path | None:
    """The folder of a model that is given by its folder, or by its name in a cache; None where it
    is not here."""
    folder = Path(reference)
    if folder.is_absolute():
        return folder
    return snapshot(reference, cache) if cache is not None else None


def holds(reference: str, cache: Path, *, weights: bool, code: bool = False) -> bool:
    """Whether the cache has what loads the model: with `weights` its config and every file of its
    weights in safetensors, else its tokenizer; with `code` the modules that these name, too."""
    folder = committed(reference, cache)
    if folder is None:
        return False
    if code and not all((folder / module).is_file() for module in own_code(folder)):
        return False
    if not weights:
        return (folder / "tokenizer_config.json").is_file()
    if (folder / "adapter_config.json").is_file():
        return (folder / "adapter_model.safetensors").is_file()
    if not (folder / "config.json").is_file():
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        parts = {str(part) for part in index["weight_map"].values()}
    except FileNotFoundError:
        return any(folder.glob("*.safetensors"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False
    return all((folder / part).is_file() for part in parts)


def own_code(folder: Path) -> set[str]:
    """The files of Python in a model's folder that its config or tokenizer names (`auto_map`)."""
    found: set[str] = set()
    for name in ("config.json", "tokenizer_config.json"):
        try:
            named = json.loads((folder / name).read_bytes())["auto_map"].values()
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            continue
        for each in named:
            # A tokenizer names two: the slow one and the fast one, either of which may be none.
            classes = each if isinstance(each, list) else [each]
            # Of another repository's, `owner/name--` stands before it.
            own = (c for c in classes if isinstance(c, str) and "--" not in c)
            found |= {f"{c.split('.')[0]}.py" for c in own}
    return found


def _repository(name: str, cache: Path, kind: Kind) -> Path:
    return cache / (_FOLDERS[kind] + name.replace("/", "--"))
