"""What a stage's result must keep to: `gate:`."""

from __future__ import annotations

from launcher.recipe.document import Node
from launcher.recipe.reading import Reading
from launcher.recipe.types import Bound


def gate(reading: Reading, node: Node, at: str) -> dict[str, Bound]:
    """Figure → its bounds."""
    given, found = node.get("gate"), {}
    for figure, entry in given.items.items() if given else ():
        if entry.value is None:
            continue
        least, most = (
            None if bound is None else float(str(bound.value))
            for bound in (entry.get("min"), entry.get("max"))
        )
        if least is None and most is None:
            reading.wrong(entry, f"{at}.gate.{figure}", "give `min`, `max` or both")
        elif least is not None and most is not None and least > most:
            reading.wrong(entry, f"{at}.gate.{figure}", f"min {least:g} is above max {most:g}")
        else:
            found[figure] = Bound(least, most)
    return found
