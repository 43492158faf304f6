"""What is free on a cluster now, and when more will be: a value that plans may be made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class FreeNode:
    """One node as a member of one partition, and the GPUs on it that no job has."""

    partition: str
    gpu: str
    gpus: int


@dataclass(frozen=True)
class Start:
    """When Slurm expects to start a job of `nodes` × `gpus`, asked for now."""

    partition: str
    gpu: str
    nodes: int
    gpus: int
    """A node."""
    seconds: float | None
    """From now; None: it would be refused, or Slurm does not say."""


@dataclass(frozen=True)
class Availability:
    """What a cluster has free now."""

    free: tuple[FreeNode, ...] = ()
    starts: tuple[Start, ...] = ()

    def fits_now(self, partition: str, gpu: str, nodes: int, gpus: int) -> bool:
        """Whether `nodes` nodes have `gpus` free GPUs each."""
        return sum(_holds(each, partition, gpu, gpus) for each in self.free) >= nodes

    def wait_s(self, partition: str, gpu: str, nodes: int, gpus: int) -> float:
        """Seconds until such a job would start, as far as is known.

        0 where it fits now; else Slurm's word on the smallest job that was asked about and is no
        smaller, or, without any, on the largest; a day where Slurm says nothing.
        """
        if self.fits_now(partition, gpu, nodes, gpus):
            return 0.0
        asked = [
            each
            for each in self.starts
            if (each.partition, each.gpu) == (partition, gpu) and each.seconds is not None
        ]
        return _nearest(asked, nodes, gpus)


def _holds(node: FreeNode, partition: str, gpu: str, gpus: int) -> bool:
    return (node.partition, node.gpu) == (partition, gpu) and node.gpus >= gpus


def _nearest(asked: Sequence[Start], nodes: int, gpus: int) -> float:
    larger = [each for each in asked if each.nodes >= nodes and each.gpus >= gpus]
    if larger:
        found = min(larger, key=lambda each: each.nodes * each.gpus)
    elif asked:
        found = max(asked, key=lambda each: each.nodes * each.gpus)
    else:
        return DAY_S
    return found.seconds if found.seconds is not None else DAY_S
