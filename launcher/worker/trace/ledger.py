"""Bytes that live, and the most that lived in each phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

BLOCK = 512
"""CUDA's caching allocator hands out multiples of this many bytes (`kMinBlockSize`)."""


def rounded(size: int) -> int:
    """What the allocator counts for `size` bytes."""
    return -(-size // BLOCK) * BLOCK


class Ledger:
    """What is allocated and freed, in order.

    The events are kept, so that what lived at a peak can be told afterwards without a copy at each
    new one.
    """

    def __init__(self) -> None:
        self.live = 0
        self.phases: dict[str, int] = {}
        """Phase → peak bytes, in the order they were first entered."""
        self._phase: str | None = None
        self._events: list[tuple[str, int]] = []
        self._at: dict[str, int] = {}

    @property
    def phase(self) -> str | None:
        """What was entered last; None after `forget`."""
        return self._phase

    def enter(self, phase: str) -> None:
        """What happens from here on counts for `phase`."""
        self._phase = phase
        self.phases.setdefault(phase, 0)
        self._note()

    def forget(self) -> None:
        """Drop all phases but the first; what happens until the next is entered counts for none."""
        for phase in list(self.phases)[1:]:
            del self.phases[phase]
        self._phase = None

    def add(self, name: str, size: int) -> int:
        """`size` bytes of operator `name`, rounded up as the allocator does; gives that size."""
        size = rounded(size)
        self.live += size
        self._events.append((name, size))
        self._note()
        return size

    def free(self, name: str, size: int) -> None:
        """Give back what `add` returned."""
        self.live -= size
        self._events.append((name, -size))

    @contextmanager
    def holding(self, name: str, *sizes: int) -> Iterator[None]:
        """Scratch memory that a kernel takes while it runs."""
        taken = [self.add(name, size) for size in sizes]
        try:
            yield
        finally:
            for size in taken:
                self.free(name, size)

    def at_peak(self) -> Counter[str]:
        """Operator → bytes that lived when the most did, over all phases."""
        highest = max(self.phases, key=lambda phase: self.phases[phase])
        live: Counter[str] = Counter()
        for name, size in self._events[: self._at[highest]]:
            live[name] += size
        return live

    def _note(self) -> None:
        if self._phase is not None and self.live > self.phases.get(self._phase, 0):
            self.phases[self._phase] = self.live
            self._at[self._phase] = len(self._events)
