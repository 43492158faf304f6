"""What ships, as a catalogue: the recipes of a method stand together, then those of folders."""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.recipe.sources import built_in_names, part_names
from launcher.shipped import shipped

_SIZED = re.compile(r"(?P<method>\w+)_(?P<size>[\d.]+b)(?P<adapter>_\w+)?")


@dataclass(frozen=True)
class Shelf:
    name: str
    """A recipe's name; of a method's recipes what they share, such as `sft_SIZE[_lora|_qlora]`."""
    recipes: tuple[str, ...]
    """The names that `load_recipe` takes, the smallest model first."""
    about: str
    """The first sentence of the file's own comment."""


@dataclass(frozen=True)
class Catalogue:
    shelves: tuple[Shelf, ...]
    sizes: dict[str, tuple[str, ...]]
    """Adapter (`_lora`; empty: none) → what stands for SIZE in its recipes."""
    parts: dict[str, tuple[str, ...]]
    """Folder of what `extends` takes → the names in it."""


def catalogue() -> Catalogue:
    sized: dict[str, list[tuple[str, str]]] = {}
    alone = []
    for name in built_in_names():
        found = _SIZED.fullmatch(name)
        if found is None:
            alone.append(Shelf(name, (name,), _about(name)))
        else:
            sized.setdefault(found["method"], []).append((found["adapter"] or "", found["size"]))
    adapters = dict.fromkeys(adapter for each in sized.values() for adapter, _ in each)
    every = [pair for pairs in sized.values() for pair in pairs]
    return Catalogue(
        shelves=(*(_of_method(method, sized[method]) for method in sized), *alone),
        sizes={
            each: _ordered({size for adapter, size in every if adapter == each})
            for each in sorted(adapters)
        },
        parts=_parts(),
    )


def _of_method(method: str, kinds: list[tuple[str, str]]) -> Shelf:
    adapters = sorted({adapter for adapter, _ in kinds if adapter})
    return Shelf(
        f"{method}_SIZE[{'|'.join(adapters)}]",
        tuple(
            f"{method}_{size}{adapter}"
            for adapter in ("", *adapters)
            for size in _ordered({size for of, size in kinds if of == adapter})
        ),
        _about(f"method/{method}"),
    )


def _parts() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name in part_names():
        folder, _, own = name.partition("/")
        found.setdefault(folder, []).append(own)
    return {folder: _ordered(set(names)) for folder, names in found.items()}


def _ordered(names: set[str]) -> tuple[str, ...]:
    """By family, then by size, then by name."""

    def key(name: str) -> tuple[str, float, str]:
        family, _, size = name.rpartition("-")
        found = re.fullmatch(r"([\d.]+)([bm])", size)
        return family, float(found[1]) * (1000 if found[2] == "b" else 1) if found else 0.0, name

    return tuple(sorted(names, key=key))


def _about(name: str) -> str:
    """The first sentence of the comment at the head of a shipped file."""
    lines = (shipped("recipes") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    said = []
    for line in lines[1:]:  # the first names the schema
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# "))
    return re.split(r"(?<=\.)\s", " ".join(said), maxsplit=1)[0]
