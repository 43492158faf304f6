"""The search of one stage: settings that fit each layout, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.cluster.types import Cluster
from launcher.memory.estimate import estimate
from launcher.memory.lengths import lengths
from launcher.memory.types import GIB, MemoryEstimate, Settings
from launcher.models.types import ModelShape
from launcher.plan.calibration import Calibration, Learned, learn
from launcher.plan.cost import Work, hours, score, work_of
from launcher.plan.deepspeed import Bases, buckets
from launcher.plan.evidence import Evidence, Kind, kind_of
from launcher.plan.layouts import Layout
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Offload, Stage

DEFAULT_GLOBAL_BATCH = 8
"""transformers' batch of one device, where the recipe does not say."""
EVALUATION_BATCH = 32
LARGEST_MICRO_BATCH = 64
HOST_FACTOR = 1.25
"""Host memory asked for, over the estimate: page cache, data workers."""


@dataclass(frozen=True)
class Choice:
    """Settings that fit a layout."""

    layout: Layout
    settings: Settings
    estimate: MemoryEstimate
    cost: float

    @property
    def rank(self) -> tuple[bool, float]:
        """Lower is better. Offload is for what fits in no other way: it hangs on the host's memory,
        PCIe and processors, of which a cost knows least."""
        return self.settings.offload != "none", self.cost


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


@dataclass
class Search:
    """One stage's search over layouts; estimates are shared between layouts."""

    stage: Stage
    shapes: Mapping[str, ModelShape]
    cluster: Cluster
    bases: Bases
    evidence: Evidence = field(default_factory=Evidence)
    trl: str = ""
    _estimates: dict[Settings, tuple[MemoryEstimate, Calibration]] = field(default_factory=dict)
    _learned: dict[Kind, Learned] = field(default_factory=dict)
    _hours: dict[Settings, float] = field(default_factory=dict)
    _best: dict[tuple[int, ...], Choice | Misfit] = field(default_factory=dict)
    _work: dict[int, Work] = field(default_factory=dict)

    @property
    def global_batch(self) -> int | None:
        """None: evaluation without one, where any batch gives the same result."""
        if self.stage.global_batch is None and self.stage.method != "evaluate":
            return DEFAULT_GLOBAL_BATCH
        return self.stage.global_batch

    def of(self, stage: Stage) -> Search:
        """The search of a changed stage, with all else as here."""
        return Search(stage, self.shapes, self.cluster, self.bases, self.evidence, self.trl)

    def on(self, layout: Layout) -> Choice | Misfit:
        """The cheapest settings that fit `layout`, or by how much the smallest do not."""
        memory, host = device_bytes(self.cluster, layout), int(layout.group.memory_gib * GIB)
        key = (layout.processes, layout.per_node, memory, host)
        if key not in self._best:
            self._best[key] = self._search(layout, host)
        found = self._best[key]
        if isinstance(found, Misfit):
            return replace(found, layout=layout)
        price = self._price(layout)
        cost = score(layout.processes, price, self._time(found.settings))
        return Choice(layout, found.settings, found.estimate, cost)

    def estimate(self, settings: Settings) -> MemoryEstimate:
        """The memory of the stage under `settings`, corrected by what past runs measured."""
        return self._calibrated(settings)[0]

    def calibration(self, settings: Settings) -> Calibration:
        """What past runs say of that estimate."""
        return replace(self._calibrated(settings)[1], tokens=self._tokens(settings))

    def margin(self, settings: Settings) -> float:
        """Share of a GPU's memory that is kept free under `settings`."""
        return self._of_kind(settings).margin.value

    def usable(self, layout: Layout, settings: Settings) -> int:
        """Bytes that one process may use of its GPU; 0 where its memory is unknown.

        Without GPUs: its share of the node's memory, of which `HOST_FACTOR` keeps some free.
        """
        memory = device_bytes(self.cluster, layout)
        return int(memory * (1 - self.margin(settings))) if layout.on_gpus else memory

    def _tokens(self, settings: Settings) -> int | None:
        if self.stage.method == "evaluate":
            return None
        method = METHODS[self.stage.method]
        longest = lengths(self.stage, self.shapes[method.main_role]).total
        return settings.micro_batch * method.sequences_per_row * longest

    def _of_kind(self, settings: Settings) -> Learned:
        kind = kind_of(self.stage, settings)
        if kind not in self._learned:
            self._learned[kind] = learn(self.evidence, kind, self.trl)
        return self._learned[kind]

    def _calibrated(self, settings: Settings) -> tuple[MemoryEstimate, Calibration]:
        if settings not in self._estimates:
            found = estimate(self.stage, self.shapes, settings)
            self._estimates[settings] = self._of_kind(settings).corrected(found)
        return self._estimates[settings]

    def variants(self, layout: Layout) -> Iterator[dict[str, Any]]:
        """The keywords of `Settings`, but for batch sizes, that may be tried on `layout`."""
        pins, processes = self.stage.resources, layout.processes
        trains = self.stage.method != "evaluate"
        pinned_gather = self.stage.train.get("ds3_gather_for_generation")
        for zero, offload in self._zero_and_offload(processes, layout.on_gpus):
            gathers: tuple[bool, ...] = (True,)
            if zero == 3 and not trains:
                # Weights are divided because they do not fit whole, while generating either.
                gathers = (False,)
            elif zero == 3 and METHODS[self.stage.method].online:
                gathers = (True, False) if pinned_gather is None else (bool(pinned_gather),)
            checkpoints: tuple[bool, ...] = (False, True) if trains else (False,)
            if pins.gradient_checkpointing is not None and trains:
                checkpoints = (pins.gradient_checkpointing,)
            for gather in gathers:
                for checkpointing in checkpoints:
                    yield {
                        "processes": processes,
                        "processes_per_node": layout.per_node,
                        "zero_stage": zero,
                        "offload": offload,
                        "gradient_checkpointing": checkpointing,
                        "gather_for_generation": gather,
                        "device": self.cluster.device,
                        **(buckets(self.bases[zero]) if zero else {}),
                    }

    def batches(self, processes: int) -> list[tuple[int, int]]:
        """(micro-batch, accumulation) with the exact global batch, the largest first."""
        pin, total = self.stage.resources.micro_batch, self.global_batch
        if total is None:
            sizes = [pin] if pin else [32, 16, 8, 4, 2, 1]
            return [(size, 1) for size in sizes]
        if total % processes:
            return []
        own = total // processes
        sizes = [pin] if pin else list(range(min(own, LARGEST_MICRO_BATCH), 0, -1))
        return [(size, own // size) for size in sizes if own % size == 0]

    def _zero_and_offload(self, processes: int, on_gpus: bool) -> list[tuple[int, Offload]]:
        pins = self.stage.resources
        every: tuple[tuple[int, Offload], ...]
        if self.stage.method == "evaluate":
            every = ((0, "none"), (3, "none"))
        else:
            every = (
                (0, "none"),
                (1, "none"),
                (1, "optimizer"),
                (2, "none"),
                (2, "optimizer"),
                (3, "none"),
                (3, "optimizer"),
                (3, "all"),
            )
        found = [
            (zero, offload)
            for zero, offload in every
            if pins.zero_stage in (None, zero) and pins.offload in (None, offload)
        ]
        if pins.zero_stage is None:
            # ZeRO 2 does all that 1 does in less memory, and accumulates in float32.
            found = [pair for pair in found if pair[0] != 1]
            if not on_gpus:
                # Host memory is all there is: nothing to offload to, little to divide.
                found = [pair for pair in found if pair == (0, "none")] or found
            elif processes == 1:
                # Nothing to divide by: DeepSpeed only serves to offload.
                found = [pair for pair in found if pair[0] == 0 or pair[1] != "none"]
        return found

    def _search(self, layout: Layout, host: int) -> Choice | Misfit:
        batches = self.batches(layout.processes)
        best: Choice | None = None
        closest: Misfit | None = None
        for keywords in self.variants(layout):
            smallest = Settings(**keywords, micro_batch=batches[-1][0], accumulation=batches[-1][1])
            misfit = self._misfit(layout, smallest, host)
            if misfit is not None:
                if closest is None or misfit.distance < closest.distance:
                    closest = misfit
                continue
            for micro, accumulation in batches:
                settings = Settings(**keywords, micro_batch=micro, accumulation=accumulation)
                if self._misfit(layout, settings, host) is None:
                    break
            cost = score(layout.processes, 1.0, self._time(settings))
            choice = Choice(layout, settings, self.estimate(settings), cost)
            # The simplest of equals: variants come from the plainest to the most frugal.
            if best is None or choice.rank < (best.rank[0], best.cost * 0.999):
                best = choice
        if best is not None:
            return best
        assert closest is not None
        return closest

    def _misfit(self, layout: Layout, settings: Settings, host: int) -> Misfit | None:
        found = self.estimate(settings)
        # With stand-in GPUs too: their host memory is what the profile says of the node.
        on_node = host_bytes(found, layout.per_node)
        usable = self.usable(layout, settings)
        misfit = Misfit(layout, settings, found.peak.total, usable, on_node, host)
        return misfit if misfit.on_gpu or misfit.on_host else None

    def _time(self, settings: Settings) -> float:
        if settings not in self._hours:
            total = self.global_batch or settings.micro_batch * settings.processes
            if total not in self._work:
                self._work[total] = work_of(self.stage, self.shapes, total)
            self._hours[settings] = hours(self._work[total], settings, self.cluster)
        return self._hours[settings]

    def _price(self, layout: Layout) -> float:
        if layout.group.gpu is None:
            return 1.0
        return self.cluster.gpus[layout.group.gpu].price


def device_bytes(cluster: Cluster, layout: Layout) -> int:
    """Memory of the GPU of one process (bytes), 0 where it is unknown; without GPUs the process's
    share of the node's."""
    if layout.group.gpu is None or not layout.on_gpus:
        return int(layout.group.memory_gib / layout.per_node * GIB)
    return int((cluster.gpus[layout.group.gpu].memory_gib or 0) * GIB)


def host_bytes(found: MemoryEstimate, per_node: int) -> int:
    """Host memory to ask of a node."""
    return int(found.host_bytes * per_node * HOST_FACTOR) + sum(found.node_items.values())
