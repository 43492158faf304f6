"""A flat config on its way to a stage: what is still to be taken, and what was made of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.problems import Problem, show


@dataclass
class Flat:
    """One config written for `trl METHOD --config`."""

    left: dict[str, Node]
    """The keys that nothing has taken yet."""
    method: Method
    stated: Node
    """What the recipe says of the stage itself; its word goes first."""
    problems: list[Problem]
    warnings: list[str]
    at: str
    """The dotted path of the stage."""
    stage: dict[str, Any] = field(default_factory=dict)
    """The stage that comes of it: nested mappings that end in nodes."""
    _left_out: dict[str, list[tuple[str, Node]]] = field(default_factory=dict)

    def take(self, key: str) -> Node | None:
        """The entry `key`, which is then dealt with; None where it is absent or null."""
        node = self.left.pop(key, None)
        return None if node is None or node.value is None else node

    def flag(self, key: str) -> bool | None:
        """The entry `key`, true or false; None where it is absent, null or wrong."""
        node = self.take(key)
        if node is None or isinstance(node.value, bool):
            return None if node is None else bool(node.value)
        self.wrong(node, key, f"got {show(node.value)}, expected true or false")
        return None

    def says(self, path: str) -> bool:
        """Whether the recipe itself says something of this dotted key of the stage."""
        node: Node | None = self.stated
        for key in path.split("."):
            if node is None or key not in node.items:
                return False
            node = node.items[key]
        return True

    def give(self, path: str, node: Node | None, value: Any = None) -> None:
        """Set a dotted key of the stage, in the place where `node` stands."""
        if node is None:
            return
        *above, last = path.split(".")
        into = self.stage
        for key in above:
            into = into.setdefault(key, {})
        into[last] = node if value is None else built(value, node)

    def give_or(self, path: str, node: Node | None, like: Node, default: Any) -> None:
        """As `give`; where there is no node, `default` in the place of `like`."""
        self.give(path, node if node is not None else built(default, like))

    def note(self, node: Node, key: str, text: str) -> None:
        self.warnings.append(f"{node.key_place} {key}: {text}")

    def wrong(self, node: Node, key: str, text: str) -> None:
        self.problems.append(Problem(node.key_place, key, text))

    def leave_out(self, key: str, reason: str, node: Node | None = None) -> None:
        """Take `key` out, and say so with all keys of the same reason."""
        node = node or self.left.pop(key, None)
        # What is null, false or empty asked for nothing.
        if node is not None and node.value not in (None, False, "", [], {}):
            self._left_out.setdefault(reason, []).append((key, node))

    def say_left_out(self) -> None:
        """One warning a reason, where the first of its keys stands."""
        for reason, keys in self._left_out.items():
            (first, node), others = keys[0], keys[1:]
            more = "".join(
                f", {key} (line {other.key_place.line})" if other.key_place.line else f", {key}"
                for key, other in others
            )
            self.note(node, f"{first}{more}", f"left out: {reason}")

    def local(self, node: Node) -> Node:
        """`node` with the absolute path that it means where something is there, as TRL reads it:
        from the current folder, or else beside the config."""
        text = str(node.value)
        if text.startswith(("/", "~", "./", "../")):
            return node
        for folder in (node.place.folder, Path.cwd()):
            path = folder / text
            try:
                if path.exists():
                    return replace(node, value=str(path))
            except (OSError, ValueError):
                return node
        return node


def built(value: Any, like: Node) -> Node:
    """Plain data as nodes that stand where `like` does; nodes within it stay."""
    if isinstance(value, Node):
        return value
    if isinstance(value, Mapping):
        entries = {key: built(entry, like) for key, entry in value.items()}
        return Node(entries, like.place, like.key_place, 1 + sum(e.size for e in entries.values()))
    if isinstance(value, (list, tuple)):
        items = [built(item, like) for item in value]
        return Node(items, like.place, like.key_place, 1 + sum(item.size for item in items))
    return Node(value, like.place, like.key_place)
