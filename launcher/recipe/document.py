"""YAML text → nodes that know their line and column, by the rules of YAML 1.2.

PyYAML resolves scalars by YAML 1.1: `2e-5` is text, `24:00:00` is 86400, `on` is true, `0123` is
83, and a second key silently replaces the first. Here its parser gives only the events; scalars are
resolved by the core schema of YAML 1.2, and duplicates, tags and merge keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from launcher.recipe.problems import Place, Problem, RecipeErrors, join, show

MAX_BYTES = 2**20
MAX_DEPTH = 40
MAX_NODES = 20_000
"""Aliases count as often as they are used, so that a small file cannot unfold into a large one."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,400}")
_BASED = re.compile(r"0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Node:
    """A value as it stands in a file."""

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    place: Place
    key_place: Place
    """Where its key stands; its own place in a list."""
    size: int = 1
    """Nodes below and with it."""

    @property
    def items(self) -> Mapping[str, Node]:
        """Its entries; empty where it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, key: str) -> Node | None:
        """The entry `key`, where it is given and not null."""
        node = self.items.get(key)
        return None if node is None or node.value is None else node


def resolve(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def parse(data: bytes, file: str, folder: Path, *, argument: bool = False) -> Node:
    """The one document in `data`. An `argument` has no line; its places bear `file` alone.

    Raises RecipeErrors.
    """
    whole = Place(file, 0, 0, folder)
    if len(data) > MAX_BYTES:
        raise RecipeErrors([Problem(whole, "", f"larger than {MAX_BYTES} bytes")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        place = Place(file, line, column, folder)
        raise RecipeErrors([Problem(place, "", "not UTF-8; save the file as UTF-8")]) from None
    loader = _Loader(text)
    composer = _Composer(loader, whole, argument)
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if error.context_mark and (mark is None or "end of stream" in (error.problem or "")):
            mark = error.context_mark  # what was left open, rather than the end of the file
        place = composer.place(mark) if mark else whole
        detail = " ".join(part for part in (error.context, error.problem) if part)
        lines = text.split("\n")[mark.line : mark.line + 1] if mark else []
        tab = mark is not None and bool(lines) and lines[0][mark.column : mark.column + 1] == "\t"
        hint = "; indent with spaces, not with tabs" if tab else ""
        raise RecipeErrors([Problem(place, "", f"not YAML: {detail}{hint}")]) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        reason = getattr(error, "reason", None) or "it cannot be read"
        place = Place(file, 0 if argument else line, 1, folder)
        raise RecipeErrors([Problem(place, "", f"not YAML: {reason}")]) from None
    finally:
        loader.dispose()


class _Composer:
    def __init__(self, loader: Any, whole: Place, argument: bool) -> None:
        self.loader = loader
        self.whole = whole
        self.argument = argument
        self.anchors: dict[str, Node] = {}
        self.problems: list[Problem] = []

    def place(self, mark: Any) -> Place:
        if self.argument:
            return self.whole
        return replace(self.whole, line=mark.line + 1, column=mark.column + 1)

    def stop(self, event: Any, path: str, text: str) -> RecipeErrors:
        return RecipeErrors([*self.problems, Problem(self.place(event.start_mark), path, text)])

    def document(self) -> Node:
        self.loader.get_event()  # the start of the stream
        if self.loader.check_event(yaml.StreamEndEvent):
            raise RecipeErrors([Problem(self.whole, "", "empty; see `launcher init`")])
        self.loader.get_event()  # the start of the document
        root = self.node("", 0)
        self.loader.get_event()  # its end
        if not self.loader.check_event(yaml.StreamEndEvent):
            event = self.loader.get_event()
            raise self.stop(event, "", "a second document; a recipe is one document")
        if self.problems:
            raise RecipeErrors(self.problems)
        return root

    def node(self, path: str, depth: int) -> Node:
        event = self.loader.get_event()
        place = self.place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            known = self.anchors.get(str(event.anchor))
            if known is None:
                raise self.stop(event, path, f"unknown alias {show(event.anchor)}")
            return replace(known, key_place=place)
        if event.tag is not None:
            problem = f"tag {show(event.tag)}; tags are not read, give the plain value"
            raise self.stop(event, path, problem)
        if depth > MAX_DEPTH:
            raise self.stop(event, "", f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            node = Node(resolve(event.value) if event.implicit[0] else event.value, place, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(path, depth, place)
        else:
            node = self.mapping(path, depth, place)
        if node.size > MAX_NODES:
            raise self.stop(event, "", f"more than {MAX_NODES} values, aliases unfolded")
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def sequence(self, path: str, depth: int, place: Place) -> Node:
        items: list[Node] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            items.append(self.node(f"{path}[{len(items)}]", depth + 1))
        self.loader.get_event()
        return Node(items, place, place, 1 + sum(item.size for item in items))

    def mapping(self, path: str, depth: int, place: Place) -> Node:
        entries: dict[str, Node] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.get_event()
            key_place = self.place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self.stop(event, path, "a key must be plain text")
            key: str = event.value
            below = join(path, key)
            if key == "<<" and event.implicit[0]:
                problem = "merge keys are not part of YAML 1.2; use `extends`"
                self.problems.append(Problem(key_place, below, problem))
            if key in entries:
                first = entries[key].key_place
                problem = f"given twice, first in line {first.line}; keep one"
                self.problems.append(Problem(key_place, below, problem))
            entries[key] = replace(self.node(below, depth + 1), key_place=key_place)
        self.loader.get_event()
        size = 1 + sum(entry.size for entry in entries.values())
        return Node(entries, place, place, size)


def plain(node: Node) -> Any:
    """The node's value without places: dict, list, str, int, float, bool, None."""
    if isinstance(node.value, dict):
        return {key: plain(entry) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def merge(under: Node, over: Node) -> Node:
    """`over` on top of `under`: mappings merge, all else is replaced, a null stays as null."""
    if not isinstance(under.value, dict) or not isinstance(over.value, dict):
        return over
    entries = dict(under.value)
    for key, entry in over.value.items():
        entries[key] = merge(entries[key], entry) if key in entries else entry
    size = 1 + sum(entry.size for entry in entries.values())
    return Node(entries, over.place, over.key_place, size)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if isinstance(resolve(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(data: Mapping[str, Any]) -> str:
    """`data` as YAML that `parse` and PyYAML both read back as the same values."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
