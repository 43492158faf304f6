"""Finding and reading recipe files, and joining them through `extends`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from launcher.recipe.document import MAX_BYTES, Node, merge, parse
from launcher.recipe.problems import Place, Problem, RecipeErrors, show, suggest
from launcher.recipe.types import SCHEMA_VERSION
from launcher.shipped import shipped

_SUFFIXES = (".yaml", ".yml")
_BUILT_IN = re.compile(r"[\w.-]+(/[\w.-]+)*")


PARTS = ("method/", "size/", "peft/")
"""Folders of what other recipes extend: no recipes by themselves."""


def built_in_names() -> list[str]:
    """The recipes that ship, by the names `load_recipe` takes."""
    return [name for name in _shipped_names() if not name.startswith(PARTS)]


def part_names() -> list[str]:
    """What ships for `extends` alone: methods, sizes, adapters."""
    return [name for name in _shipped_names() if name.startswith(PARTS)]


def _shipped_names() -> list[str]:
    root = shipped("recipes")
    found = (path.relative_to(root).as_posix() for path in root.glob("**/*.yaml"))
    return sorted(name.removesuffix(".yaml") for name in found)


def read_source(source: str) -> Node:
    """The merged document of a path or built-in name. Raises RecipeErrors."""
    place = Place(show(source), 0, 0, Path.cwd())
    try:
        is_path = source.endswith(_SUFFIXES) or Path(source).exists()
    except (OSError, ValueError):
        is_path = False
    if is_path:
        return _read(Path(source), source, place, ())
    found = _built_in(source)
    if found is None:
        near = suggest(source, built_in_names())
        text = f"no built-in recipe, and no path of a .yaml file{near}"
        raise RecipeErrors([Problem(place, "", text)])
    return _read(found, str(found), place, ())


def read_config(stated: Node) -> Node:
    """The mapping in the file that `stated` names, from the folder of the file that names it.

    Raises RecipeErrors.
    """
    text, place = str(stated.value), stated.place
    path = Path(os.path.normpath(place.folder / Path(text).expanduser()))
    label = _label(path, place.folder / Path(place.file).name, place.file) if place.line else text
    document = parse(_bytes(path, label, place), label, path.parent)
    if not isinstance(document.value, dict):
        problem = f"{show(document.value)} at the top; a config of TRL is a mapping"
        raise RecipeErrors([Problem(document.place, "", problem)])
    return document


def _built_in(name: str) -> Path | None:
    if not _BUILT_IN.fullmatch(name) or ".." in name.split("/"):
        return None
    path = shipped("recipes") / f"{name}.yaml"
    try:
        return path if path.is_file() else None
    except OSError:  # longer than a file's name may be
        return None


def _read(path: Path, label: str, asked: Place, chain: tuple[Path, ...]) -> Node:
    """The file at `path` on top of all that it extends."""
    full = Path(os.path.abspath(path))  # noqa: PTH100 (keeps symbolic links as the user wrote them)
    if full in chain:
        loop = " → ".join(file.name for file in (*chain[chain.index(full) :], full))
        raise RecipeErrors([Problem(asked, "extends", f"extends itself: {loop}")])
    document = parse(_bytes(full, label, asked), label, full.parent)
    if not isinstance(document.value, dict):
        text = f"{show(document.value)} at the top; a recipe is a mapping (`stages:` …)"
        raise RecipeErrors([Problem(document.place, "", text)])
    _check_version(document)
    base: Node | None = None
    for parent, place in _parents(document):
        found = _parent(parent, full.parent)
        if found is None:
            near = suggest(parent, _shipped_names())
            text = f"{show(parent)} is neither a file beside this one nor built in{near}"
            raise RecipeErrors([Problem(place, "extends", text)])
        below = _read(found, _label(found, full, label), place, (*chain, full))
        base = below if base is None else merge(base, below)
    own = {key: entry for key, entry in document.value.items() if key != "extends"}
    document = Node(own, document.place, document.key_place, document.size)
    return document if base is None else merge(base, document)


def _bytes(path: Path, label: str, asked: Place) -> bytes:
    place = asked if asked.line else Place(label, 0, 0, path.parent)
    try:
        if path.is_dir():
            raise RecipeErrors([Problem(place, "", f"{label} is a folder; name a file in it")])
        if not path.exists():
            raise RecipeErrors([Problem(place, "", f"{label} does not exist")])
        if not path.is_file():
            raise RecipeErrors([Problem(place, "", f"{label} is not a regular file")])
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        raise RecipeErrors([Problem(place, "", text)]) from None


def _check_version(document: Node) -> None:
    version = document.get("launcher")
    if version is None:
        return
    if isinstance(version.value, bool) or not isinstance(version.value, int):
        text = f"got {show(version.value)}, expected the schema version {SCHEMA_VERSION}"
        raise RecipeErrors([Problem(version.place, "launcher", text)])
    if version.value != SCHEMA_VERSION:
        way = (
            "install a newer launcher" if version.value > SCHEMA_VERSION else "there is no such one"
        )
        text = f"schema version {version.value}; this launcher reads {SCHEMA_VERSION}: {way}"
        raise RecipeErrors([Problem(version.place, "launcher", text)])


def _parents(document: Node) -> list[tuple[str, Place]]:
    extends = document.get("extends")
    if extends is None:
        return []
    items = extends.value if isinstance(extends.value, list) else [extends]
    parents: list[tuple[str, Place]] = []
    for item in items:
        if not isinstance(item.value, str) or not item.value:
            text = f"got {show(item.value)}, expected a recipe's name or path, or a list of them"
            raise RecipeErrors([Problem(item.place, "extends", text)])
        parents.append((item.value, item.place))
    return parents


def _parent(name: str, folder: Path) -> Path | None:
    """Beside the file that asks, else built in."""
    try:
        path = folder / name
        if not name.endswith(_SUFFIXES):
            path = path.with_name(path.name + ".yaml")
        if path.exists():
            return path
    except (OSError, ValueError):
        return None
    return _built_in(name)


def _label(path: Path, child: Path, child_label: str) -> str:
    """`path` written as the child was, relative where the child was relative."""
    if Path(child_label).is_absolute():
        return os.path.normpath(path)
    relative = os.path.relpath(path, child.parent)
    return os.path.normpath(Path(child_label).parent / relative)
