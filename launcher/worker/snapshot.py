"""Write the keys of every method's config where a login node reads them without the training stack.

`python -m launcher.worker.snapshot` writes `launcher/recipe/trl_fields.json` from the installed TRL
and our own configs; with `--check` it writes nothing and exits 1 where the file is not current.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import hashlib
import importlib
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# It warns whenever something of `trl.experimental` is imported.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import trl

from launcher.recipe.methods import METHODS

TARGET = Path(__file__).resolve().parent.parent / "recipe" / "trl_fields.json"

_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def json_type(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a type hint; `{}` (anything) for a class that no recipe can state."""
    if hint in _NAMES:
        return {"type": _NAMES[hint]}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if hint in (dict, Mapping) or origin in (dict, Mapping):
        below = json_type(arguments[1]) if arguments else {}
        return {"type": "object", **({"additionalProperties": below} if below else {})}
    if hint in (list, tuple) or origin in (list, tuple):
        below = json_type(arguments[0]) if arguments else {}
        return {"type": "array", **({"items": below} if below else {})}
    return {}


def _union(arguments: tuple[Any, ...]) -> dict[str, Any]:
    enums = [hint for hint in arguments if isinstance(hint, type) and issubclass(hint, enum.Enum)]
    if enums:
        # `SchedulerType | str` is a string that the config turns into the enum.
        arguments = tuple(hint for hint in arguments if hint is not str)
    branches: list[dict[str, Any]] = []
    for hint in arguments:
        branch = json_type(hint)
        if branch and branch not in branches:
            branches.append(branch)
    if all(set(branch) == {"type"} for branch in branches):
        names = [branch["type"] for branch in branches]
        return {"type": names[0] if len(names) == 1 else names}
    return branches[0] if len(branches) == 1 else {"anyOf": branches}


def fields_of(config: type) -> dict[str, dict[str, Any]]:
    """Field name → its JSON Schema with its default, for each field of the config's call."""
    hints = typing.get_type_hints(config)
    described: dict[str, dict[str, Any]] = {}
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        described[field.name] = json_type(hints[field.name])
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is not dataclasses.MISSING:
            described[field.name]["default"] = (
                default.value if isinstance(default, enum.Enum) else default
            )
    return described


def templates() -> list[str]:
    """SHA-256 of each chat template that TRL replaces by one with marks around what the assistant
    says, where `assistant_only_loss` needs them."""
    folder = Path(trl.__file__).parent / "chat_templates"
    return sorted(
        hashlib.sha256(path.with_name(path.name.replace("_training", "")).read_bytes()).hexdigest()
        for path in folder.glob("*_training.jinja")
    )


_OF_THE_TRAINER = ("log_extra", "log_metric", "trainer_state")


def rewards() -> dict[str, Any]:
    """TRL's reward functions: their options, whether they are made with them, and what they need.

    A `get_…` gives the function that judges; others take their options with every call, which are
    the keywords with a default that no trainer fills in.
    """
    found: dict[str, Any] = {}
    module = importlib.import_module("trl.rewards")
    for name in sorted(name for name in dir(module) if not name.startswith("_")):
        function = getattr(module, name)
        if not inspect.isfunction(function):
            continue
        made = name.startswith("get_")
        hints = typing.get_type_hints(function)
        options: dict[str, Any] = {}
        for key, parameter in inspect.signature(function).parameters.items():
            needed = parameter.default is parameter.empty
            if parameter.kind is parameter.VAR_KEYWORD or key in _OF_THE_TRAINER:
                continue
            if made or not needed:
                default = {} if needed else {"default": parameter.default}
                options[key] = {**json_type(hints[key]), **default}
        math = "math_verify" in inspect.getsource(sys.modules[function.__module__])
        found[name] = {"made": made, "math": math, "options": options}
    return found


def snapshot() -> dict[str, Any]:
    """TRL's version, the chat templates that it replaces, its reward functions, and of each method
    its config's fields and refused keys."""
    methods: dict[str, Any] = {}
    for method in METHODS.values():
        if method.config is None:
            continue
        module_name, class_name = method.config.split(":")
        module = importlib.import_module(module_name)
        methods[method.name] = {
            "config": class_name,
            # What a config inherits and does not take, with the way out, is stated beside it.
            "refused": dict(getattr(module, "REFUSED", {})),
            "fields": fields_of(getattr(module, class_name)),
        }
    return {
        "trl": trl.__version__,
        "templates": templates(),
        "rewards": rewards(),
        "methods": methods,
    }


def text() -> str:
    """The file's text: one field a line, so that a new TRL shows as a readable difference."""
    document = snapshot()
    known = ",\n".join(f"  {json.dumps(each)}" for each in document["templates"])
    lines = ["{", f' "trl": {json.dumps(document["trl"])},', ' "templates": [', known, " ],"]
    judges = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in document["rewards"].items()]
    lines += [' "rewards": {', ",\n".join(judges), " },"]
    lines.append(' "methods": {')
    for name, method in document["methods"].items():
        lines += [f'  "{name}": {{', f'   "config": {json.dumps(method["config"])},']
        for part in ("refused", "fields"):
            entries = [
                f"    {json.dumps(key)}: {json.dumps(entry)}" for key, entry in method[part].items()
            ]
            lines += [f'   "{part}": {{', ",\n".join(entries), "   },"]
        lines[-1] = "   }"
        lines.append("  },")
    lines[-1] = "  }"
    return "\n".join([line for line in lines if line] + [" }", "}", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    wanted = text()
    if parser.parse_args().check:
        current = TARGET.read_text(encoding="utf-8") if TARGET.is_file() else ""
        if current == wanted:
            return 0
        print(f"{TARGET} is not current; run python -m launcher.worker.snapshot", file=sys.stderr)
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
