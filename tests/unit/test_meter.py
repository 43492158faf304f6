"""A trainer process measures itself, phase by phase, on this machine for real."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from launcher.records import files, measurement
from launcher.records.measurement import STEP, Measurement, PhaseMeasurement
from launcher.worker.classify import ran_out
from launcher.worker.measure import Meter, host_peak

MIB = 2**20


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    return Meter(measurement.path(tmp_path, "7", 0), "load")


def test_the_peak_of_a_phase_is_its_own(meter: Meter) -> None:
    meter.enter("large")
    before = host_peak()
    held = bytearray(b"x" * (300 * MIB))
    del held
    meter.enter("small")
    found = meter.finish().phases
    large, small = (found[name].peak_bytes["host"] for name in ("large", "small"))
    assert large >= before + 250 * MIB
    assert small <= large - 250 * MIB


def test_steps_are_timed_whole_and_by_phase(meter: Meter) -> None:
    for seconds in (0.01, 0.01, 0.05):
        meter.step_begins()
        meter.enter("rollout")
        time.sleep(seconds)
        meter.enter("update")
        meter.enter("optimizer step")
        meter.step_ends("data")
    found = meter.finish()
    assert found.steps == 3
    whole, rollout, update = (found.phases[name] for name in (STEP, "rollout", "update"))
    # Twice in a step, before and after the rollout, and counted once.
    assert (whole.count, rollout.count, update.count) == (3, 3, 3)
    assert 0.01 <= rollout.median_s < 0.05 <= rollout.longest_s <= whole.longest_s
    assert found.phases["load"].count == 1


def test_what_was_measured_is_on_disk_before_the_model_is_saved(
    meter: Meter, tmp_path: Path
) -> None:
    meter.step_begins()
    meter.step_ends("data")
    meter.enter("save")
    found = measurement.read(tmp_path, "7")
    assert found is not None
    assert (found.last_phase, found.steps) == ("save", 1)


def test_what_it_died_at_is_there_though_the_step_never_ended(meter: Meter, tmp_path: Path) -> None:
    meter.step_begins()
    meter.saw(64)
    meter.saw(32)
    meter.write(out_of_memory=ran_out(RuntimeError("CUDA out of memory. Tried to allocate")))
    found = measurement.read(tmp_path, "7")
    assert found is not None
    assert found.out_of_memory
    assert (found.last_phase, found.steps, found.tokens) == ("update", 0, 64)
    assert found.phases["update"].peak_bytes["host"] > 0


def test_other_errors_are_no_lack_of_memory() -> None:
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("CUDA error: device-side assert triggered"))


def test_a_new_attempt_of_the_same_job_begins_anew(tmp_path: Path) -> None:
    path = measurement.path(tmp_path, "7", 0)
    Meter(path, "load").finish()
    assert measurement.read(tmp_path, "7") is not None
    Meter(path, "load")
    assert measurement.read(tmp_path, "7") is None


def test_of_all_ranks_the_largest_counts(tmp_path: Path) -> None:
    for rank, (size, seconds, died) in enumerate([(5, 0.2, False), (9, 0.1, True)]):
        phase = PhaseMeasurement({"host": size}, 3, seconds, 2 * seconds)
        said = Measurement({"update": phase}, 64 * rank, f"rank {rank}", out_of_memory=died)
        files.write_json(measurement.path(tmp_path, "7", rank), said)
    files.replace(measurement.path(tmp_path, "7", 2), b"half a fi")
    found = measurement.read(tmp_path, "7")
    assert found is not None
    assert found.phases["update"] == PhaseMeasurement({"host": 9}, 3, 0.2, 0.4)
    assert (found.tokens, found.out_of_memory, found.last_phase) == (64, True, "rank 1")
    assert found.peak_bytes == {"host": 9}


def test_the_peak_of_a_process_that_is_gone_is_nothing() -> None:
    assert host_peak(Path("/proc/0/status")) == 0
