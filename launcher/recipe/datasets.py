"""The data of a stage, its columns checked where a local file tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.recipe import paths
from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.types import Data, Part


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
    there, stated = paths.columns(path), _stated(given)
    _check_columns(reading, given, f"{at}.data", there, columns, method)
    _check_sense(reading, given, f"{at}.data", method)
    pairs = _are_pairs(there, stated.get("keep", ()), columns)
    read = {"path": path, "eval_path": held_out, "columns": columns, "pairs": pairs}
    return Data(**{**stated, **read, "also": _also(reading, given, f"{at}.data")})


def judged_columns(data: Data | None, method: Method) -> tuple[str, ...] | None:
    """The columns beside the prompt of the rows whose completions a stage judges; None where no
    local file tells them."""
    if data is None:
        return None
    path = data.path if method.trains or data.hold_out is not None else data.eval_path
    there = paths.columns(path or data.path)
    if there is None:
        return None
    read = [column for column in there if not data.keep or column in data.keep]
    ours = {theirs: ours for ours, theirs in data.columns.items()}
    return tuple(dict.fromkeys(c for theirs in read if (c := ours.get(theirs, theirs)) != "prompt"))


def _stated(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in node.items.items():
        if isinstance(entry.value, list):
            found[key] = tuple(str(item.value) for item in entry.value)
        elif entry.value is not None:
            found[key] = entry.value
    return found


def _also(reading: Reading, node: Node, at: str) -> tuple[Part, ...]:
    given = node.get("also")
    parts = []
    for index, part in enumerate(given.value if given and isinstance(given.value, list) else ()):
        path = reading.path(part.get("path"), f"{at}.also[{index}].path", paths.data)
        if path is not None:
            parts.append(Part(**{**_stated(part), "path": path}))
    return tuple(parts)


def _check_sense(reading: Reading, node: Node, at: str, method: Method) -> None:
    """Keys that would be passed over in silence, or contradict each other."""
    held = node.get("hold_out")
    if held is not None:
        for key in ("eval_path", "eval_split"):
            if node.get(key) is not None:
                reading.wrong_key(held, f"{at}.hold_out", f"there is `{key}` too; keep one")
        if isinstance(held.value, float) and held.value > 1 and held.value % 1:
            text = f"got {held.value}, expected whole rows, or a share below one"
            reading.wrong(held, f"{at}.hold_out", text)
    if method.columns == (("prompt",),):
        return
    for key in ("as_chat", "system_prompt"):
        given = node.get(key)
        if given is not None and given.value is not False:
            text = f"{method.name} has no prompts to answer; write it into the rows"
            reading.wrong_key(given, f"{at}.{key}", text)


def _check_columns(
    reading: Reading,
    node: Node,
    at: str,
    there: tuple[str, ...] | None,
    columns: Mapping[str, str],
    method: Method,
) -> None:
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


def _are_pairs(
    there: tuple[str, ...] | None, keep: tuple[str, ...], columns: Mapping[str, str]
) -> bool:
    """Whether the rows are pairs of answers, by the file's columns, or where nothing tells them by
    those that the recipe names."""
    read = keep if there is None else [c for c in there if not keep or c in keep]
    ours = {theirs: ours for ours, theirs in columns.items()}
    return {ours.get(theirs, theirs) for theirs in read} | set(columns) >= {"chosen", "rejected"}


def _needed(method: Method) -> str:
    return " or ".join(" + ".join(wanted) for wanted in method.columns)
