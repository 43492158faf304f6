"""The text of a profile → `Cluster`, and back. Pure.

A scalar is read by the type of its field, not by how it looks: `2e-5` is a number where a number is
asked for and text where text is, so that YAML's traps (`on`, `1e6`, `12:30:00`) have no way in.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from launcher.cluster.gpu_types import gpu_of, is_known
from launcher.cluster.types import Cluster, Gpu, NodeGroup
from launcher.errors import UsageError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"null|~|")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BOOL = {"true": True, "false": False}
# What may stand in an sbatch option, in `--gres` and in a variable's name.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# `--constraint` has operators and counts.
_CONSTRAINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+&|*(),:@!\[\]=-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPEEDS = ("tflops_half", "tflops_single", "bandwidth_gbs", "pcie_gbs", "attainable_mfu")
_UNKNOWN_MEMORY = """\
# A GPU whose memory is null is refused by plans: fill in what the driver reports, in GiB, or let
# `launcher cluster discover --probe` ask.
"""


@dataclass(frozen=True)
class _Problem:
    """What is wrong in a profile, and where."""

    line: int
    column: int
    key: str
    text: str


class _Bad(Exception):
    """A value that could not be read; its problem is noted."""


def parse_profile(text: str, file: str) -> Cluster:
    """The cluster that `text` describes.

    Raises UsageError with every problem, each as `FILE:LINE:COLUMN KEY: what is wrong`.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UsageError(f"{place}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not YAML: {error}") from None
    if root is None:
        raise UsageError(f"{file}: empty; `launcher cluster discover` writes a profile")
    reader = _Reader()
    try:
        cluster = reader.value(root, Cluster, "")
    except _Bad:
        cluster = None
    if isinstance(cluster, Cluster) and not reader.problems:
        for key, words in _contradictions(cluster):
            reader.note(reader.places[key], key, words)
    if reader.problems:
        raise UsageError(
            "\n".join(
                f"{file}:{each.line}:{each.column} {each.key or 'profile'}: {each.text}"
                for each in sorted(reader.problems, key=lambda each: (each.line, each.column))
            )
        )
    assert isinstance(cluster, Cluster)
    return cluster


class _Reader:
    def __init__(self) -> None:
        self.problems: list[_Problem] = []
        self.places: dict[str, yaml.Node] = {}

    def note(self, node: yaml.Node, key: str, text: str) -> None:
        mark = node.start_mark
        self.problems.append(_Problem(mark.line + 1, mark.column + 1, key, text))

    def bad(self, node: yaml.Node, key: str, text: str) -> _Bad:
        self.note(node, key, text)
        return _Bad()

    def value(self, node: yaml.Node, hint: Any, key: str) -> Any:
        """`node` as a value of type `hint`; raises _Bad once its problems are noted."""
        self.places[key] = node
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if isinstance(node, yaml.ScalarNode) and not node.style and _NULL.fullmatch(node.value):
                return None
            (hint,) = (arg for arg in args if arg is not type(None))
            return self.value(node, hint, key)
        if is_dataclass(hint):
            return self.record(node, hint, key)
        if origin is tuple:
            if not isinstance(node, yaml.SequenceNode):
                raise self.bad(node, key, "a list is expected")
            found = (self.kept(e, args[0], f"{key}[{i}]") for i, e in enumerate(node.value))
            return tuple(found)
        if origin is Mapping:
            entries = self.entries(node, key)
            return {k: self.kept(e, args[1], _join(key, k)) for k, (_, e) in entries.items()}
        if not isinstance(node, yaml.ScalarNode):
            raise self.bad(node, key, f"{_wanted(hint)} is expected")
        return self.scalar(node, hint, key)

    def kept(self, node: yaml.Node, hint: Any, key: str) -> Any:
        """As `value`, but None in a bad one's place, so that the rest is read too."""
        try:
            return self.value(node, hint, key)
        except _Bad:
            return None

    def entries(self, node: yaml.Node, key: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, key, "a mapping is expected")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for name, entry in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self.note(name, key, "a key must be plain text")
            elif name.value in found:
                first = found[name.value][0].start_mark.line + 1
                self.note(name, _join(key, name.value), f"given twice, first in line {first}")
            else:
                found[name.value] = (name, entry)
        return found

    def record(self, node: yaml.Node, kind: Any, key: str) -> Any:
        known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}
        hints = get_type_hints(kind)
        values: dict[str, Any] = {}
        for name, (at, entry) in self.entries(node, key).items():
            if name in known:
                values[name] = self.kept(entry, hints[name], _join(key, name))
            else:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                self.note(at, _join(key, name), f"unknown key; {hint}")
        for name, field in known.items():
            required = field.default is MISSING and field.default_factory is MISSING
            if required and name not in values:
                self.note(node, _join(key, name), f"missing; give {_wanted(hints[name])}")
        if self.problems:
            raise _Bad
        if kind is Gpu:
            # What the profile leaves out, the type's name tells.
            return replace(gpu_of(values.get("type") or key.rpartition(".")[2]), **values)
        return kind(**values)

    def scalar(self, node: yaml.ScalarNode, hint: Any, key: str) -> Any:
        text, plain = node.value, not node.style
        if hint is str:
            if plain and _NULL.fullmatch(text):
                raise self.bad(node, key, "text is expected; quote it if null is meant as text")
            return text
        if get_origin(hint) is Literal:
            if text in get_args(hint):
                return text
        elif plain and hint is bool and text in _BOOL:
            return _BOOL[text]
        elif plain and hint is int and _INT.fullmatch(text):
            return int(text)
        elif plain and hint is float and _FLOAT.fullmatch(text):
            return float(text)
        raise self.bad(node, key, f"{_wanted(hint)} is expected, not {text[:60]!r}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _wanted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else _wanted(arg) for arg in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(hint, "a mapping")


def _contradictions(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """What the types cannot rule out, by key."""
    for word in ("name", "account", "qos", "reservation"):
        value = getattr(cluster, word)
        if value is not None and not _WORD.fullmatch(value):
            yield word, f"{value!r} is not a name that Slurm takes"
    if cluster.constraint is not None and not _CONSTRAINT.fullmatch(cluster.constraint):
        yield "constraint", f"{cluster.constraint!r} is not a constraint that Slurm takes"
    lines = {f"setup[{index}]": line for index, line in enumerate(cluster.setup)}
    lines |= {f"env.{name}": value for name, value in cluster.env.items()}
    for word in ("python", "scratch", "secrets", "ledger"):
        lines[word] = getattr(cluster, word) or ""
    for key, line in lines.items():
        if any(not character.isprintable() and character != "\t" for character in line):
            yield key, "has a control character; take it out"
    if cluster.secrets is not None and not cluster.secrets.startswith(("/", "~/")):
        yield "secrets", "an absolute path is needed, or one that begins with ~/"
    if cluster.ledger is not None and not cluster.ledger.startswith("/"):
        yield "ledger", "an absolute path is needed: jobs and commands start in different folders"
    if not cluster.partitions:
        yield "partitions", "at least one is needed"
    for rate in ("network_gbits", "storage_gbs"):
        speed = getattr(cluster, rate)
        if speed is not None and speed <= 0:
            yield rate, "must be positive"
    for type_name, gpu in cluster.gpus.items():
        key = f"gpus.{type_name}"
        if not _WORD.fullmatch(type_name):
            yield key, f"{type_name!r} is not a name that Slurm's gres takes"
        if gpu.memory_gib is not None and not 0 < gpu.memory_gib < 4096:
            yield f"{key}.memory_gib", "must be positive, in GiB"
        if gpu.price <= 0:
            yield f"{key}.price", "must be positive"
        if gpu.type is not None and not is_known(gpu.type):
            yield f"{key}.type", f"{gpu.type!r} is no type that is known; leave it out"
        for field in _SPEEDS:
            speed = getattr(gpu, field)
            if speed is not None and speed <= 0:
                yield f"{key}.{field}", "must be positive"
        if gpu.nvlink_gbs is not None and gpu.nvlink_gbs < 0:
            yield f"{key}.nvlink_gbs", "must be positive, or 0 for none"
        if gpu.attainable_mfu is not None and gpu.attainable_mfu > 1:
            yield f"{key}.attainable_mfu", "is a share of the peak: at most 1"
    for variable in cluster.env:
        if not _VARIABLE.fullmatch(variable):
            yield f"env.{variable}", "is not the name of a variable"
    seen: set[str] = set()
    for index, part in enumerate(cluster.partitions):
        key = f"partitions[{index}]"
        for word in ("account", "qos"):
            value = getattr(part, word)
            if value is not None and not _WORD.fullmatch(value):
                yield f"{key}.{word}", f"{value!r} is not a name that Slurm takes"
        if part.name in seen:
            yield f"{key}.name", f"{part.name!r} is given twice"
        seen.add(part.name)
        if not _WORD.fullmatch(part.name):
            yield f"{key}.name", f"{part.name!r} is not a name that Slurm takes"
        if part.max_time_minutes is not None and part.max_time_minutes < 1:
            yield f"{key}.max_time_minutes", "must be at least 1; null is no limit"
        if not part.groups:
            yield f"{key}.groups", "at least one is needed"
        for number, group in enumerate(part.groups):
            yield from _group(cluster, group, f"{key}.groups[{number}]")


def _group(cluster: Cluster, group: NodeGroup, key: str) -> Iterator[tuple[str, str]]:
    for name in ("nodes", "cpus", "memory_gib"):
        if getattr(group, name) <= 0:
            yield f"{key}.{name}", "must be positive"
    if group.gpu is None and group.gpus != 0:
        yield f"{key}.gpus", "give the type too, under `gpu`"
    if group.gpu is not None and group.gpus < 1:
        yield f"{key}.gpu", "give the number too, under `gpus`"
    if group.gpu is not None and group.gpu not in cluster.gpus:
        near = get_close_matches(group.gpu, cluster.gpus, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{key}.gpu", f"{group.gpu!r} is not described under `gpus`{hint}"


def dump_profile(cluster: Cluster) -> str:
    """`cluster` as the YAML text of a profile, which `parse_profile` reads back as it is.

    Values that equal their default are left out, and what the name of a GPU type tells (but for
    memory and price, which its owner should see).
    """
    unknown = any(gpu.memory_gib is None for gpu in cluster.gpus.values())
    plain = _plain(cluster)
    if cluster.gpus:
        plain["gpus"] = {name: _plain_gpu(name, gpu) for name, gpu in cluster.gpus.items()}
    body = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return (_UNKNOWN_MEMORY if unknown else "") + body


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if not _is_default(getattr(value, field.name), field)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value


def _plain_gpu(name: str, gpu: Gpu) -> dict[str, Any]:
    told = gpu_of(gpu.type or name)
    shown = ("memory_gib", "price")
    return {
        field.name: getattr(gpu, field.name)
        for field in fields(gpu)
        if field.name in shown or getattr(gpu, field.name) != getattr(told, field.name)
    }


def _is_default(value: Any, field: Field[Any]) -> bool:
    if field.default_factory is not MISSING:
        return bool(value == field.default_factory())
    return field.default is not MISSING and bool(value == field.default)
