"""The search of one stage: the best settings that fit, with as few memory estimates as can be.

Time costs microseconds and an estimate a fraction of a millisecond, so every candidate is timed
first and they are taken in the order of what they would be worth. The first that fits is the best:
no estimate is made of what is worse. A bound of the states alone, and the fact that memory grows
with the micro-batch, save most of the rest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.cluster.availability import Availability
from launcher.cluster.types import Cluster
from launcher.memory.estimate import estimate
from launcher.memory.lengths import lengths
from launcher.memory.models import residents
from launcher.memory.process import around
from launcher.memory.stack import stack_of
from launcher.memory.states import exchange, states
from launcher.memory.types import GIB, MemoryEstimate, Settings
from launcher.models.types import ModelShape
from launcher.plan import candidates
from launcher.plan.calibration import Calibration, Learned, learn, named
from launcher.plan.choices import Choice, Misfit
from launcher.plan.deepspeed import Bases
from launcher.plan.duration import Duration, duration
from launcher.plan.evidence import Evidence, Kind, kind_of
from launcher.plan.layouts import Layout
from launcher.plan.objective import Objective, rank
from launcher.plan.speed import Speed, speed_of
from launcher.plan.work import Work, work_of
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

HOST_FACTOR = 1.25
"""Host memory asked for, over the estimate: page cache, data workers."""

_Entry = tuple[tuple[object, ...], int, "_Open"]


_Timed = tuple[tuple[float, ...], int, Settings, Duration]
"""A batch size: value, micro-batch, settings, duration."""


@dataclass(frozen=True)
class _Open:
    """Settings but for the batch sizes, to be tried on a layout: first by a bound of what they are
    worth, then by the worth of each batch size, then by what fits."""

    layout: Layout
    keywords: dict[str, Any]
    plainness: int
    timed: tuple[_Timed, ...] = ()
    """The batch sizes, the best first."""
    fits: bool = False
    """Whether those that do not fit are gone."""

    def settings(self, micro: int, accumulation: int) -> Settings:
        return Settings(**self.keywords, micro_batch=micro, accumulation=accumulation)


@dataclass
class Search:
    """One stage's search over layouts; estimates are shared between layouts."""

    stage: Stage
    shapes: Mapping[str, ModelShape]
    cluster: Cluster
    bases: Bases
    evidence: Evidence = field(default_factory=Evidence)
    trl: str = ""
    objective: Objective = "cost"
    availability: Availability | None = None
    _estimates: dict[Settings, tuple[MemoryEstimate, Calibration]] = field(default_factory=dict)
    _learned: dict[Kind, Learned] = field(default_factory=dict)
    _least: dict[tuple[int, int, str], float] = field(default_factory=dict)
    _work: dict[int, Work] = field(default_factory=dict)
    _without_padding: dict[int, Work] = field(default_factory=dict)
    _speeds: dict[tuple[object, ...], Speed] = field(default_factory=dict)
    _bounds: dict[tuple[object, ...], tuple[float, ...]] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Choice | None] = field(default_factory=dict)

    def of(self, stage: Stage) -> Search:
        """The search of a changed stage, with all else as here."""
        return Search(
            stage,
            self.shapes,
            self.cluster,
            self.bases,
            self.evidence,
            self.trl,
            self.objective,
            self.availability,
        )

    def batches(self, processes: int) -> list[tuple[int, int]]:
        """(micro-batch, accumulation) with the exact global batch."""
        return candidates.batches(self.stage, processes)

    def best(self, layouts: Sequence[Layout], *, offload: bool = False) -> Choice | None:
        """The best settings on any of `layouts`; None where nothing fits.

        `offload`: settings that move states to the host, instead of those that do not.
        """
        key = (offload, *((self._place(each), each.nodes, each.per_node) for each in layouts))
        if key not in self._found:
            self._found[key] = self._first_that_fits(layouts, offload)
        found = self._found[key]
        if found is None:
            return None
        # The same nodes may have been searched under another partition's name.
        sizes = {(each.nodes, each.per_node): each for each in layouts}
        layout = sizes[found.layout.nodes, found.layout.per_node]
        if not layout.partition.preemptible:
            return replace(found, layout=layout)
        # Checkpoints come more often there.
        length = self._duration(layout, found.settings, preemptible=True)
        return replace(found, layout=layout, duration=length, value=self._value(layout, length))

    def on(self, layout: Layout) -> Choice | Misfit:
        """The best settings that fit `layout`, or by how much the most frugal do not."""
        found = self.best([layout]) or self.best([layout], offload=True)
        return found or self.closest(layout)

    def closest(self, layout: Layout) -> Misfit:
        """By how much the settings that come nearest do not fit `layout`."""
        micro, accumulation = self.batches(layout.processes)[0]
        found = [
            self._measured(layout, Settings(**each, micro_batch=micro, accumulation=accumulation))
            for offload in (False, True)
            for each in self._frugal(layout, offload)
        ]
        return min(found, key=lambda each: each.distance)

    def estimate(self, settings: Settings) -> MemoryEstimate:
        """The memory of the stage under `settings`, corrected by what past runs measured."""
        return self._calibrated(settings)[0]

    def calibration(self, settings: Settings) -> Calibration:
        """What past runs say of that estimate."""
        found = named(self._calibrated(settings)[1], kind_of(self.stage, settings))
        return replace(found, tokens=self._tokens(settings))

    def margin(self, settings: Settings) -> float:
        """Share of a GPU's memory that is kept free under `settings`."""
        return self._of_kind(settings).margin.value

    def usable(self, layout: Layout, settings: Settings) -> int:
        """Bytes that one process may use of its GPU; 0 where its memory is unknown.

        Without GPUs: its share of the node's memory, of which `HOST_FACTOR` keeps some free.
        """
        memory = device_bytes(self.cluster, layout)
        return int(memory * (1 - self.margin(settings))) if layout.on_gpus else memory

    def work(self, settings: Settings) -> Work:
        """The stage's work under `settings`, of which evaluation's batch depends on them."""
        total = candidates.global_batch(self.stage) or settings.micro_batch * settings.processes
        if total not in self._work:
            self._work[total] = work_of(self.stage, self.shapes, total)
        return self._work[total]

    def speed(self, layout: Layout) -> Speed:
        """The speed of each process of `layout`."""
        key = (layout.group, layout.per_node)
        if key not in self._speeds:
            self._speeds[key] = speed_of(
                self.cluster, layout.group, layout.per_node, self.stage.dtype
            )
        return self._speeds[key]

    def _first_that_fits(self, layouts: Sequence[Layout], offload: bool) -> Choice | None:
        heap: list[_Entry] = []
        for layout in layouts:
            for plainness, keywords in enumerate(self._variants(layout, offload)):
                if self._may_fit(layout, keywords):
                    opened = _Open(layout, keywords, plainness)
                    heap.append((_order(opened, self._bound(opened)), len(heap), opened))
        heapq.heapify(heap)
        count = len(heap)
        while heap:
            _, _, opened = heapq.heappop(heap)
            if opened.fits:
                return self._choice(opened)
            opened = self._timed(opened) if not opened.timed else self._fitting(opened)
            if opened.timed:
                count += 1
                heapq.heappush(heap, (_order(opened, opened.timed[0][0]), count, opened))
        return None

    def settings(self, layout: Layout) -> list[Settings]:
        """All that may be tried on `layout` with the smallest batch, whether it fits or not; those
        that use the host's memory last."""
        micro, accumulation = self.batches(layout.processes)[0]
        return [
            Settings(**each, micro_batch=micro, accumulation=accumulation)
            for offload in (False, True)
            for each in self._variants(layout, offload)
        ]

    def choice(self, layout: Layout, settings: Settings) -> Choice:
        """What given settings come to on `layout`, whether they fit or not."""
        preemptible = layout.partition.preemptible
        length = self._duration(layout, settings, preemptible=preemptible)
        value = self._value(layout, length)
        return Choice(layout, settings, self.estimate(settings), length, self._price(layout), value)

    def _choice(self, opened: _Open) -> Choice:
        layout, (value, _, settings, length) = opened.layout, opened.timed[0]
        price, plainness = self._price(layout), opened.plainness
        return Choice(layout, settings, self.estimate(settings), length, price, value, plainness)

    def _bound(self, opened: _Open) -> tuple[float, ...]:
        """No batch size is worth more: the largest, if it needed no padding."""
        layout = opened.layout
        size = (layout.processes, layout.per_node)
        key = (self._place(layout), size, opened.plainness, opened.keywords["offload"])
        if key not in self._bounds:
            settings = opened.settings(*self.batches(layout.processes)[-1])
            work = self._unpadded(self.work(settings))
            length = duration(work, settings, self.speed(layout), preemptible=False)
            self._bounds[key] = self._value(layout, length)
        return self._bounds[key]

    def _unpadded(self, work: Work) -> Work:
        if work.batch not in self._without_padding:
            self._without_padding[work.batch] = replace(work, pads=False)
        return self._without_padding[work.batch]

    def _timed(self, opened: _Open) -> _Open:
        """With what each batch size is worth."""
        timed: list[_Timed] = []
        for micro, accumulation in self.batches(opened.layout.processes):
            settings = opened.settings(micro, accumulation)
            length = self._duration(opened.layout, settings, preemptible=False)
            timed.append((self._value(opened.layout, length), micro, settings, length))
        # Of equals the larger micro-batch, which hangs least on how fast Python is.
        timed.sort(key=lambda each: (each[0], -each[1]))
        return replace(opened, timed=tuple(timed))

    def _fitting(self, opened: _Open) -> _Open:
        """With the batch sizes that fit alone. Memory grows with the micro-batch."""
        every = sorted(opened.timed, key=lambda each: each[1])
        low, high = 0, len(every)
        while low < high:
            # The smallest first: where that does not fit, nothing does.
            middle = (low + high + 1) // 2 if low else 1
            if self.fits(opened.layout, every[middle - 1][2]):
                low = middle
            else:
                high = middle - 1
        largest = every[low - 1][1] if low else 0
        kept = tuple(each for each in opened.timed if each[1] <= largest)
        return replace(opened, timed=kept, fits=True)

    def _duration(self, layout: Layout, settings: Settings, *, preemptible: bool) -> Duration:
        return duration(self.work(settings), settings, self.speed(layout), preemptible=preemptible)

    def _value(self, layout: Layout, length: Duration) -> tuple[float, ...]:
        gib = device_bytes(self.cluster, layout) / GIB if layout.on_gpus else 0.0
        return rank(
            self.objective,
            layout.gpus,
            self._price(layout),
            gib,
            length.hours,
            self.wait_s(layout),
        )

    def fits(self, layout: Layout, settings: Settings) -> bool:
        """Whether GPUs and nodes of `layout` hold the stage under `settings`."""
        found = self._measured(layout, settings)
        return not (found.on_gpu or found.on_host)

    def _measured(self, layout: Layout, settings: Settings) -> Misfit:
        found = self.estimate(settings)
        # With stand-in GPUs too: their host memory is what the profile says of the node.
        return Misfit(
            layout,
            settings,
            needs=found.peak.total,
            usable=self.usable(layout, settings),
            host_needs=host_bytes(found, layout.per_node),
            host_usable=int(layout.group.memory_gib * GIB),
        )

    def _may_fit(self, layout: Layout, keywords: Mapping[str, Any]) -> bool:
        """False where states and buffers alone, whatever the batch is, are too large.

        Where past runs correct the estimate, only the estimate itself can tell.
        """
        if not layout.on_gpus:
            return True
        key = (layout.processes, keywords["zero_stage"], keywords["offload"])
        if key not in self._least:
            settings = Settings(**keywords)
            learned = self._of_kind(settings)
            least = 0 if learned.observations else self._fixed(settings)
            self._least[key] = least / (1 - learned.margin.value)
        return self._least[key] <= device_bytes(self.cluster, layout)

    def _fixed(self, settings: Settings) -> int:
        """What is there at the step, or while ZeRO exchanges the last gradients."""
        stack, models = stack_of(self.stage, settings), residents(self.stage, self.shapes)
        held = [states(model, stack, settings) for model in models]
        if not METHODS[self.stage.method].trains:
            # One model is in memory at a time.
            tensors = max(each.weights for each in held)
        else:
            kept = sum(each.weights + each.optimizer + each.gradients for each in held)
            step = sum(each.step for each in held)
            tensors = kept + max(step, sum(exchange(models, stack, settings).values()))
        return tensors + sum(around(settings).values())

    def _variants(self, layout: Layout, offload: bool) -> Iterator[dict[str, Any]]:
        gpu = self.cluster.gpus.get(layout.group.gpu or "")
        memory = gpu.memory_gib if gpu is not None else None
        return candidates.variants(
            self.stage, layout, self.cluster.device, memory, self.bases, offload=offload
        )

    def _frugal(self, layout: Layout, offload: bool) -> list[dict[str, Any]]:
        """The variants that need least: without a plain one whose frugal twin is there."""
        every = list(self._variants(layout, offload))
        return [
            each
            for each in every
            if each["gradient_checkpointing"]
            or {**each, "gradient_checkpointing": True} not in every
        ]

    def _place(self, layout: Layout) -> tuple[object, ...]:
        """What the value of settings on a layout depends on, besides its size."""
        group = layout.group
        wait = self.wait_s(layout) if self.objective == "start" else 0.0
        return group.gpu, group.cpus, group.memory_gib, group.gpus, wait

    def wait_s(self, layout: Layout) -> float:
        """Seconds until a job of this layout could start, 0 where that is not known.

        Stages that wait for others start later than anybody can tell now.
        """
        if self.availability is None or layout.group.gpu is None or self.stage.needs:
            return 0.0
        return self.availability.wait_s(
            layout.partition.name, layout.group.gpu, layout.all_nodes, layout.tasks_per_node
        )

    def _tokens(self, settings: Settings) -> int | None:
        if not METHODS[self.stage.method].trains:
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

    def _price(self, layout: Layout) -> float:
        if layout.group.gpu is None:
            return 1.0
        return self.cluster.gpus[layout.group.gpu].price


def _order(opened: _Open, value: tuple[float, ...]) -> tuple[object, ...]:
    layout = opened.layout
    return value, layout.nodes, layout.processes, opened.plainness


def device_bytes(cluster: Cluster, layout: Layout) -> int:
    """Memory of the GPU of one process (bytes), 0 where it is unknown; without GPUs the process's
    share of the node's."""
    if layout.group.gpu is None or not layout.on_gpus:
        return int(layout.group.memory_gib / layout.per_node * GIB)
    return int((cluster.gpus[layout.group.gpu].memory_gib or 0) * GIB)


def host_bytes(found: MemoryEstimate, per_node: int) -> int:
    """Host memory to ask of a node."""
    return int(found.host_bytes * per_node * HOST_FACTOR) + sum(found.node_items.values())
