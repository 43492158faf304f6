"""What past runs measured, as a value that plans are made from. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from launcher.memory.types import Settings
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

OTHERS_RUNS = 10
"""Runs of one kind that are taken from one other user: the newest."""
OTHERS_RATIO = 1.25
"""How far off another user's measurement may say that an estimate is, either way."""
OWN_RATIO = 4.0
"""The same for one's own: beyond it something else was measured than was estimated."""

_TOO_LARGE = 2**50
_TOO_MANY = 2**20
_DAY_S = 86400.0
_WORD = re.compile(r"[A-Za-z0-9._+-]{0,64}")


@dataclass(frozen=True, order=True)
class Kind:
    """Stages whose estimates err alike."""

    method: str
    adapter: Literal["full", "lora", "qlora"]
    sharding: Literal["none", "zero-1-2", "zero-3"]
    offload: bool
    device: Literal["cuda", "cpu"]

    def __str__(self) -> str:
        words = [self.method, self.adapter, self.sharding.replace("none", "no ZeRO")]
        return " ".join([*words, *(["offload"] if self.offload else []), self.device])


def kind_of(stage: Stage, settings: Settings) -> Kind:
    """The kind of a stage under settings.

    GPU type, model and sizes are no part of it: they move the peak by what the estimate itemises,
    and a kind of its own for each would never be seen often enough to learn from.
    """
    adapter: Literal["full", "lora", "qlora"] = "full"
    if stage.peft is not None:
        adapter = "lora" if stage.peft.quantization is None else "qlora"
    return Kind(
        method=stage.method,
        adapter=adapter,
        sharding=("none", "zero-1-2", "zero-1-2", "zero-3")[settings.zero_stage],
        offload=settings.offload != "none",
        device=settings.device,
    )


@dataclass(frozen=True)
class Observation:
    """One attempt: what was estimated for it, and what it took."""

    kind: Kind
    formula: str
    """`launcher.plan.formula.fingerprint` of the estimate that predicted."""
    trl: str
    """TRL's version, major and minor."""
    predicted: int
    """Bytes of the estimate without its correction, for the tokens that the run saw: what torch
    reserves on CUDA, the resident set on CPU."""
    measured: int
    """Bytes: the largest over ranks and phases."""
    when: float
    """End of the attempt (seconds since the epoch)."""
    run: str
    """Names the attempt, and tells nothing else of it."""
    gpu: str | None = None
    processes: int = 1
    at_least: bool = False
    """It ran out of memory: `measured` is what it could have, less than it needed."""
    user: int | None = None
    """Whose it is, by the owner of its file; None: one's own."""

    @property
    def ratio(self) -> float:
        """Measured over predicted, no further from 1 than this user may say."""
        bound = OWN_RATIO if self.user is None else OTHERS_RATIO
        return min(max(self.measured / self.predicted, 1 / bound), bound)


@dataclass(frozen=True)
class Evidence:
    """What a plan knows of past runs: a value, and the same value makes the same plan."""

    observations: tuple[Observation, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the observations, as hex; empty without any."""
        if not self.observations:
            return ""
        import msgspec

        lines = sorted(msgspec.json.encode(each) for each in self.observations)
        return hashlib.sha256(b"\n".join(lines)).hexdigest()

    def of(self, kind: Kind, formula: str, trl: str) -> tuple[Observation, ...]:
        """The observations that tell of an estimate, the newest first.

        Those of another formula or another TRL (by its minor version) tell of another estimate:
        their ratio would correct an error that is not made any more. torch's version does not
        count: a login node does not know it, and the newest runs outnumber the old in time.
        """
        found = [
            each
            for each in self.observations
            if (each.kind, each.formula, each.trl) == (kind, formula, minor(trl))
            and each.predicted > 0
            and each.measured > 0
        ]
        return tuple(_bounded(sorted(found, key=lambda each: (-each.when, each.run))))


def minor(version: str) -> str:
    """`1.16.0` → `1.16`."""
    return ".".join(version.split(".")[:2])


def merge(*sources: Iterable[Observation]) -> Evidence:
    """All of the sources, each attempt once: as the first source that has it says."""
    known: dict[str, Observation] = {}
    for source in sources:
        for each in source:
            known.setdefault(each.run, each)
    return Evidence(tuple(known.values()))


def received(observation: Observation, user: int | None, now: float) -> Observation | None:
    """What another's file said, as that user's; None where it is not as an observation can be.

    Whose it is stands in the owner of the file, never in its text.
    """
    sizes = (observation.predicted, observation.measured)
    texts = (observation.formula, observation.trl, observation.run, observation.gpu or "")
    kind = observation.kind
    if (
        kind.method not in METHODS
        or (kind.offload and kind.sharding == "none")
        or (kind.adapter != "full" and not METHODS[kind.method].trains)
        or not all(0 < size < _TOO_LARGE for size in sizes)
        or not 0 < observation.when < now + _DAY_S
        or not 0 < observation.processes < _TOO_MANY
        or not all(_WORD.fullmatch(text) for text in texts)
    ):
        return None
    return replace(observation, user=user)


def _bounded(newest_first: list[Observation]) -> Iterable[Observation]:
    """Other users' only up to `OTHERS_RUNS` each."""
    taken: dict[int, int] = {}
    for each in newest_first:
        if each.user is not None:
            taken[each.user] = taken.get(each.user, 0) + 1
            if taken[each.user] > OTHERS_RUNS:
                continue
        yield each
