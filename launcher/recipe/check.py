"""Nodes held to a JSON Schema: every problem with its place, and what is left without them.

Only what `schema` and `fields` use of JSON Schema is known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.problems import Problem, join, show, suggest

_WORDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "object": "a mapping",
    "array": "a list",
    "null": "null",
}
_MANY = 12
_YES_NO = {"yes", "no", "on", "off", "y", "n"}


def check(node: Node, schema: Mapping[str, Any], path: str, problems: list[Problem]) -> Node | None:
    """`node` without its wrong parts, each of them added to `problems`; None where it is all wrong.

    A null entry of a mapping counts as not given, and stays.
    """
    branch = _branch(node.value, schema)
    if branch is None:
        problems.append(Problem(node.place, path, _complaint(node.value, schema)))
        return None
    if isinstance(node.value, dict):
        return _mapping(node, branch, path, problems)
    if isinstance(node.value, list):
        items = [
            check(item, branch.get("items", {}), f"{path}[{index}]", problems)
            for index, item in enumerate(node.value)
        ]
        return replace(node, value=[item for item in items if item is not None])
    if not _within(node.value, branch):
        problems.append(Problem(node.place, path, _complaint(node.value, schema)))
        return None
    return node


def _mapping(
    node: Node, schema: Mapping[str, Any], path: str, problems: list[Problem]
) -> Node | None:
    known: Mapping[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    names = schema.get("propertyNames", {}).get("pattern")
    kept: dict[str, Node] = {}
    for key, entry in node.items.items():
        below = join(path, key)
        if not key.isprintable() or not key:
            problems.append(Problem(entry.key_place, below, "a key is printable text, not empty"))
        elif key not in known and others is False:
            text = f"unknown key{suggest(key, tuple(known))}"
            problems.append(Problem(entry.key_place, below, text))
        elif names and not re.fullmatch(names, key):
            text = f"{show(key)} is no name; {_NAME_HELP}"
            problems.append(Problem(entry.key_place, below, text))
        elif entry.value is None:
            kept[key] = entry
        else:
            checked = check(entry, known.get(key, others or {}), below, problems)
            if checked is not None:
                kept[key] = checked
    for key in schema.get("required", ()):
        given = node.items.get(key)
        if given is None:
            problems.append(Problem(node.key_place, join(path, key), "missing; it is required"))
        elif given.value is None:
            problems.append(Problem(given.place, join(path, key), "null; it is required"))
    if sum(entry.value is not None for entry in node.items.values()) < schema.get(
        "minProperties", 0
    ):
        problems.append(Problem(node.place, path, "empty; it needs at least one entry"))
    return replace(node, value=kept)


_NAME_HELP = "names are letters, digits, - and _, up to 64, and start with a letter or digit"


def _branch(value: object, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The alternative of `schema` whose type `value` has."""
    if "anyOf" in schema:
        branches = [found for found in (_branch(value, s) for s in schema["anyOf"]) if found]
        return next((b for b in branches if _within(value, b)), branches[0] if branches else None)
    if "enum" in schema:
        return schema if any(_same(value, allowed) for allowed in schema["enum"]) else None
    kinds = schema.get("type")
    if kinds is None:
        return {**schema, "any": True}
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return schema if any(_is(value, kind) for kind in kinds) else None


def _same(value: object, allowed: object) -> bool:
    return type(value) is type(allowed) and value == allowed


def _is(value: object, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "null":
        return value is None
    return isinstance(value, {"string": str, "object": dict, "array": list}[kind])


def _within(value: object, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 2**20) and (
            "pattern" not in schema or re.fullmatch(schema["pattern"], value) is not None
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return (
        math.isfinite(value)
        and value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
    )


def _complaint(value: object, schema: Mapping[str, Any]) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {show(value)}, expected a finite number"
    text = f"got {show(value)}, expected {expected(schema)}"
    if isinstance(value, str):
        known = schema.get("x-not", {}).get(value.lower().replace("-", "_"))
        if known is not None:
            return f"{text}; {known}"
        allowed = [str(choice) for choice in _choices(schema) if isinstance(choice, str)]
        near = suggest(value, allowed)
        if near.startswith("; did"):
            return text + near
        if value.lower() in _YES_NO and "true or false" in text:
            return f"{text}; write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        if "number" in text and re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", value):
            return f"{text}; take the quotes off"
    if isinstance(value, float) and value.is_integer() and "a whole number" in text:
        return f"{text}; write {int(value)}"
    return text


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    if "anyOf" in schema:
        return [choice for branch in schema["anyOf"] for choice in _choices(branch)]
    return list(schema.get("enum", ()))


def expected(schema: Mapping[str, Any]) -> str:
    """What `schema` allows, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(expected(branch) for branch in schema["anyOf"]))
    if "enum" in schema:
        choices = [show(choice).strip("'") for choice in schema["enum"]]
        if len(choices) > _MANY:
            choices[_MANY:] = ["…"]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if "x-expected" in schema:
        return str(schema["x-expected"])
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    text = " or ".join(_WORDS[kind] + _bounds(kind, schema) for kind in kinds)
    if "pattern" in schema:
        return f"{text} of letters, digits, -, _ and single dots, up to {schema['maxLength']}"
    if "minLength" in schema:
        return f"{text}, not empty" if schema.get("maxLength", 0) else text
    return text


def _bounds(kind: str, schema: Mapping[str, Any]) -> str:
    words = (
        ("exclusiveMinimum", "above"),
        ("minimum", "from"),
        ("exclusiveMaximum", "below"),
        ("maximum", "up to"),
    )
    bounds = "".join(f" {word} {schema[key]}" for key, word in words if key in schema)
    return bounds if kind in ("integer", "number") else ""
