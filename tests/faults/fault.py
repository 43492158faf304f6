"""A fault: how it comes, and what must be so after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.faults.scenes import SAVE, Scene

if TYPE_CHECKING:
    from tests.faults.case import Case

POINTS = 5
"""Seeded points of each fault, at least."""


class Missed(Exception):
    """The fault did not hit: the point is drawn again."""


class Lost(Exception):
    """What the launcher did not survive, or did wrongly, in a few words."""


End = Literal["alone", "next command", "stays stopped"]
"""`alone`: the chain goes on to COMPLETE unattended. `next command`: it does so once somebody calls
the same `submit` again, as the docs say of this fault. `stays stopped`: it does not go on, and the
fault's own function has looked that it stopped as it should."""

Inject = Callable[["Case"], None]


@dataclass(frozen=True)
class Fault:
    name: str
    """A sentence's beginning: what happens."""
    inject: Inject
    """Starts the scene's run and lets the fault hit at a point drawn from the case's `rng`, with
    the proof told to the case. Raises Missed, Lost."""
    scene: Scene
    group: str
    """The file of `kinds` it is in."""
    end: End = "alone"
    redo: int = SAVE
    """Optimizer steps that may be done twice at most, of one stage after one hit."""
    cluster: str = "shared"
    points: int = POINTS
    same_weights: bool = True
    """Whether the final weights must be those of the undisturbed run."""
    quick: bool = False
    """Whether one point of it is among the short tests."""
    patience_s: float = 900
    """How long the chain may take from the fault to its end."""


FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def fault(
    name: str,
    scene: Scene,
    *,
    end: End = "alone",
    redo: int = SAVE,
    cluster: str = "shared",
    points: int = POINTS,
    same_weights: bool = True,
    quick: bool = False,
    patience_s: float = 900,
) -> Callable[[Inject], Inject]:
    """Enter the function into `FAULTS`; the keywords are `Fault`'s."""

    def enter(inject: Inject) -> Inject:
        assert name not in FAULTS, name
        group = inject.__module__.rpartition(".")[2]
        FAULTS[name] = Fault(
            name, inject, scene, group, end, redo, cluster, points, same_weights, quick, patience_s
        )
        return inject

    return enter
