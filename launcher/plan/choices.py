"""What a search finds for a layout: settings that hold the stage, or by how much none does."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory.types import MemoryEstimate, Settings
from launcher.plan.duration import Duration
from launcher.plan.layouts import Layout


@dataclass(frozen=True)
class Choice:
    """Settings that fit a layout."""

    layout: Layout
    settings: Settings
    estimate: MemoryEstimate
    duration: Duration
    price: float
    """Of a GPU-hour."""
    value: tuple[float, ...]
    """What the objective ranks it by (`launcher.plan.objective.rank`): lower is better."""
    plainness: int = 0
    """Which variant of settings it is, from the plainest on."""

    @property
    def gpu_hours(self) -> float:
        return self.layout.gpus * self.duration.hours

    @property
    def cost(self) -> float:
        return self.gpu_hours * self.price

    @property
    def offloads(self) -> bool:
        return self.settings.offload != "none"

    @property
    def rank(self) -> tuple[object, ...]:
        """Orders the choices of one stage.

        Offload is for what fits in no other way: it hangs on the host's memory, PCIe and
        processors, of which a duration knows least. Among equals by the objective go first: what
        cannot be preempted, the fewest nodes and GPUs, the plainest settings.
        """
        layout = self.layout
        return (
            self.offloads,
            self.value,
            layout.partition.preemptible,
            layout.nodes,
            layout.processes,
            self.plainness,
            layout.partition.name,
        )


@dataclass(frozen=True)
class Misfit:
    """A layout that nothing fits, by the settings that come nearest: bytes a GPU, and a node."""

    layout: Layout
    settings: Settings
    needs: int
    usable: int
    host_needs: int
    host_usable: int

    @property
    def on_gpu(self) -> bool:
        """Whether GPU memory is short."""
        return self.layout.on_gpus and self.needs > self.usable

    @property
    def on_host(self) -> bool:
        """Whether host memory is short."""
        return self.host_needs > self.host_usable

    @property
    def excess(self) -> float:
        """Needs over what is usable, of what is shortest: above 1."""
        host = self.host_needs / max(1, self.host_usable)
        return max(host, self.needs / max(1, self.usable)) if self.layout.on_gpus else host

    @property
    def distance(self) -> tuple[float, int]:
        """Orders misfits of a layout: where the host is shortest, by what a GPU needs."""
        return self.excess, self.needs
