"""TRL's sampler of prompts, in an order that follows from seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """The inherited one goes on drawing from one generator, so that a resumed run would see the
    order of the first epoch again."""

    def __init__(self, prompts: Any, *, epoch: Callable[[], int], **repeats: Any) -> None:
        super().__init__(prompts, **repeats)
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + self.epoch())
        yield from super().__iter__()
