"""What the readers of a document's parts share: the document, its stages, what is wrong so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from launcher.recipe import nearby, paths
from launcher.recipe.document import Node, merge
from launcher.recipe.problems import Problem


@dataclass(frozen=True)
class Reading:
    """One document as it is read. `problems`, `warnings` and `paths` fill on the way."""

    document: Node
    """Held to the schema: what is left has the right types."""
    problems: list[Problem]
    warnings: list[str] = field(default_factory=list)
    paths: dict[tuple[str, int, int, str], str] = field(default_factory=dict)
    """`where` of a stated path → what it stands for, for the resolved document."""

    @cached_property
    def stages(self) -> Mapping[str, Node]:
        """Stage → its node, on top of what the recipe says of its method."""
        stages, methods = self.document.get("stages"), self.document.get("methods")
        found: dict[str, Node] = {}
        for name, node in stages.items.items() if stages else ():
            method = node.get("method")
            wide = methods.get(str(method.value)) if methods and method else None
            if node.items:
                found[name] = merge(wide, node) if wide else node
        return found

    def wrong(self, node: Node, key: str, text: str) -> None:
        """Something is wrong with a value."""
        self.problems.append(Problem(node.place, key, text))

    def wrong_key(self, node: Node, key: str, text: str) -> None:
        """Something is wrong with a key that is there."""
        self.problems.append(Problem(node.key_place, key, text))

    def missing(self, owner: Node, key: str, text: str) -> None:
        """`key` is not there, unless it was there and wrong, and so is already a problem."""
        if not any(p.key == key or p.key.startswith(f"{key}.") for p in self.problems):
            self.problems.append(Problem(owner.key_place, key, f"missing; {text}"))

    def path(self, node: Node | None, key: str, read: Callable[[Node], str]) -> str | None:
        """What the path at `node` stands for; None where there is none or it cannot be used."""
        if node is None:
            return None
        try:
            found = read(node)
        except paths.BadPath as error:
            self.wrong(node, key, str(error))
            return None
        self.paths[where(node)] = found
        meant = nearby.meant(node)
        if meant is not None:
            self.warnings.append(f"{node.place} {key}: {meant}")
        return found


def where(node: Node) -> tuple[str, int, int, str]:
    """What tells one stated value from every other."""
    return node.place.file, node.place.line, node.place.column, str(node.value)
