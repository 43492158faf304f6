"""Peak memory and time of a trainer process, phase by phase, from outside the trainers.

On a GPU the peaks are those of torch's allocator, reset at every change of phase. The peak of the
resident set is the kernel's own (`VmHWM`), reset likewise where it can be; where it cannot (in some
containers) a phase's is the highest until its end.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from launcher.records import files, measurement
from launcher.records.measurement import STEP, Measurement, PhaseMeasurement
from launcher.worker import streams
from launcher.worker.heartbeat import beat

# Between two writings of what was measured so far, for when this process is killed.
WRITE_EVERY_S = 30.0
# Times that are kept of a phase, the newest: a median of more says nothing more.
KEPT_TIMES = 1000
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def host_peak(status: Path = _STATUS) -> int:
    """Peak of a process's resident set since it was reset last, in bytes; 0 where it is gone."""
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Meter:
    """Measures one rank. It is always in one phase; `enter` begins the next."""

    def __init__(self, path: Path, phase: str) -> None:
        self._path = path
        self._device: int | None = None
        self._peaks: dict[str, dict[str, int]] = {}
        self._times: dict[str, list[float]] = {}
        self._counts: dict[str, int] = {}
        self._longest: dict[str, float] = {}
        self._of_step: dict[str, float] | None = None
        self._tokens: int | None = None
        self._phase = phase
        self._began = self._written = time.monotonic()
        self.versions: dict[str, str] = {}
        path.unlink(missing_ok=True)

    def on_device(self, index: int) -> None:
        """Measure this GPU too, from now on."""
        self._device = index

    def enter(self, phase: str) -> None:
        """End the phase that is, and begin another."""
        beat(phase)
        if phase == self._phase:
            return
        self._close()
        self._reset()
        self._phase = phase
        if phase == "save":
            # Models are merged and written in host memory: what ends the process there, for want of
            # it or of time, shall not take with it what was measured.
            streams.forgive("what was measured", self.write)

    def step_begins(self) -> None:
        self.enter("update")
        # A phase may be entered several times in a step: its time is that of all.
        self._of_step = {}

    def step_ends(self, then: str) -> None:
        """The optimizer's step is over; `then` is the next phase."""
        self._close()
        for name, seconds in (self._of_step or {}).items():
            self._note(name, seconds)
        if self._of_step:
            self._note(STEP, sum(self._of_step.values()))
        self._of_step = None
        self._reset()
        self._phase = then
        beat(STEP)
        if then != "data":
            beat(then)
        if self._began - self._written >= WRITE_EVERY_S:
            streams.forgive("what was measured", self.write)

    def saw(self, tokens: int) -> None:
        """A forward pass with gradients over so many tokens."""
        self._tokens = max(tokens, self._tokens or 0)

    def measured(self, *, out_of_memory: bool = False) -> Measurement:
        """Everything so far, the phase that is included."""
        self._peek()
        phases = {
            name: PhaseMeasurement(
                peak_bytes=dict(self._peaks.get(name, {})),
                count=self._counts.get(name, 0),
                median_s=median(self._times.get(name, [0.0])),
                longest_s=self._longest.get(name, 0.0),
            )
            for name in dict.fromkeys([*self._peaks, *self._times])
        }
        return Measurement(phases, self._tokens, self._phase, out_of_memory, self.versions)

    def finish(self) -> Measurement:
        """End the last phase, and leave what was measured."""
        self._close()
        return self.write()

    def write(self, *, out_of_memory: bool = False) -> Measurement:
        """Leave what was measured so far for the supervisor. Returns it."""
        found = self.measured(out_of_memory=out_of_memory)
        files.private_folder(self._path.parent)
        files.write_json(self._path, found)
        self._written = time.monotonic()
        return found

    def _close(self) -> None:
        if self._device is not None:
            import torch

            # Else the time of what was launched would count for the next phase.
            torch.cuda.synchronize(self._device)
        self._peek()
        now = time.monotonic()
        seconds = now - self._began
        self._began = now
        if self._of_step is None:
            self._note(self._phase, seconds)
        else:
            self._of_step[self._phase] = self._of_step.get(self._phase, 0.0) + seconds

    def _note(self, name: str, seconds: float) -> None:
        times = self._times.setdefault(name, [])
        times.append(seconds)
        del times[:-KEPT_TIMES]
        self._longest[name] = max(seconds, self._longest.get(name, 0.0))
        self._counts[name] = self._counts.get(name, 0) + 1

    def _peek(self) -> None:
        """Note the peaks since the last reset for the phase that is."""
        found = {"host": host_peak()}
        if self._device is not None:
            import torch

            found["device allocated"] = torch.cuda.max_memory_allocated(self._device)
            found["device reserved"] = torch.cuda.max_memory_reserved(self._device)
        peaks = self._peaks.setdefault(self._phase, {})
        for name, size in found.items():
            peaks[name] = max(size, peaks.get(name, 0))

    def _reset(self) -> None:
        with suppress(OSError):
            _CLEAR_REFS.write_text(_RESET_PEAK)
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)


def watch_tokens(meter: Meter, model: Any) -> None:
    """Tell the meter of every forward pass of `model` that trains: batch × length, padding too."""
    import torch

    def saw(_model: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        if torch.is_grad_enabled() and isinstance(ids, torch.Tensor):
            meter.saw(ids.numel())

    model.register_forward_pre_hook(saw, with_kwargs=True)


def over_ranks(own: Measurement) -> Measurement:
    """The largest over all ranks; `own` in a world of one. A collective."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return own
    gathered: list[Measurement | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    found = measurement.largest([each for each in gathered if each is not None])
    assert found is not None
    return found
