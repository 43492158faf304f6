"""The data of a stage, its columns checked where a local file tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.recipe import paths
from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.types import Data


def data(reading: Reading, node: Node, at: str, method: Method) -> Data | None:
    """The stage's data; None where it states none, or none that can be used."""
    given = node.get("data")
    if not method.columns:
        if given is not None:
            reading.wrong_key(given, f"{at}.data", f"{method.name} takes none")
        return None
    if given is None:
        if node.get("use") is None:
            text = f"{method.name} needs data with the columns {_needed(method)}"
            reading.missing(node, f"{at}.data", text)
        return None
    mapping = given.get("columns")
    columns = {key: str(e.value) for key, e in mapping.items.items()} if mapping else {}
    path = reading.path(given.get("path"), f"{at}.data.path", paths.data)
    held_out = reading.path(given.get("eval_path"), f"{at}.data.eval_path", paths.data)
    if path is None:
        return None
    _check_columns(reading, given, f"{at}.data", path, columns, method)
    stated: dict[str, Any] = {
        key: entry.value for key, entry in given.items.items() if entry.value is not None
    }
    return Data(**{**stated, "path": path, "eval_path": held_out, "columns": columns})


def _check_columns(
    reading: Reading,
    node: Node,
    at: str,
    path: str,
    columns: Mapping[str, str],
    method: Method,
) -> None:
    there = paths.columns(path)
    if there is None:
        return
    for ours, theirs in columns.items():
        if theirs not in there:
            entry = node.items["columns"].items[ours]
            text = f"the file has no column {show(theirs)}{suggest(theirs, there)}"
            reading.wrong(entry, f"{at}.columns.{ours}", text)
            return
    named = {column for column in there if column not in columns.values()} | set(columns)
    if not any(named.issuperset(wanted) for wanted in method.columns):
        text = f"{method.name} needs the columns {_needed(method)}; the file has "
        text += ", ".join(show(column).strip("'") for column in there)
        reading.wrong(node.items["path"], f"{at}.path", f"{text}; map them with `columns`")


def _needed(method: Method) -> str:
    return " or ".join(" + ".join(wanted) for wanted in method.columns)
