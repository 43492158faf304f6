"""Which trainings the benchmark of GPU memory chooses, and what it makes of their receipts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu_cases import report
from benchmarks.gpu_cases.case import LENGTHS, MODELS, Case, grid
from benchmarks.gpu_cases.material import Material
from benchmarks.gpu_cases.planned import Planned, plan
from benchmarks.gpu_cases.result import Machine, Result, read
from benchmarks.gpu_memory import in_order
from launcher.memory.types import GIB
from launcher.records.measurement import STEP, Measurement, PhaseMeasurement
from launcher.scheduler.local_machine import describe
from launcher.scheduler.nvidia_smi import Device
from tests.unit.command import ROOT

METHODS = ("sft", "reward", "ppo", "dpo", "grpo")
MEMORY_GIB = 79.0
MACHINE = Machine("NVIDIA H100 80GB HBM3", int(MEMORY_GIB * GIB), "580.1", "3.12.3")
VERSIONS = {"torch": "2.11.0", "transformers": "5.23.0", "trl": "1.16.0"}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[Planned]:
    """All cases of a machine with an H100 and little to share it with."""
    device = Device(0, "GPU-1", MACHINE.device, MEMORY_GIB)
    cluster = describe("local", [device], cpus=16, memory_gib=128.0)
    material = Material(tmp_path_factory.mktemp("material"), "cuda")
    return [plan(case, material, cluster, MACHINE.memory_bytes) for case in grid(METHODS)]


def test_the_first_cases_show_every_value_of_the_grid(every: list[Planned]) -> None:
    first = [each.case for each in in_order(every)][:24]
    assert {case.model for case in first} == set(MODELS)
    assert {case.method for case in first} == set(METHODS)
    assert {case.length for case in first} == set(LENGTHS)
    assert {(case.lora, case.checkpointing) for case in first} == {
        (lora, checkpointing) for lora in (True, False) for checkpointing in (True, False)
    }


def test_two_cases_of_different_kind_just_do_not_fit_and_come_early(every: list[Planned]) -> None:
    order = in_order(every)
    one, other = (each for each in order if not each.fits)
    assert {order.index(one), order.index(other)} <= set(range(12))
    assert all(MEMORY_GIB < each.total / GIB < 1.25 * MEMORY_GIB for each in (one, other))
    assert (one.case.model, one.case.method, one.case.lora) != (
        other.case.model,
        other.case.method,
        other.case.lora,
    )


def test_cases_are_planned_as_they_say_without_a_word_of_the_planner(every: list[Planned]) -> None:
    for each in every:
        stage = each.stage
        assert stage.gradient_checkpointing == each.case.checkpointing
        assert (stage.zero_stage, stage.offload, stage.accumulation) == (0, "none", 1)
        assert (stage.micro_batch, stage.save_steps) == (each.case.rows, None)
        assert (stage.stage.peft is not None) == each.case.lora
        # The formula alone: nothing that was measured before is in it.
        assert "correction" not in stage.estimate.peak.items


def result(*, reserved: float = 9.0, tokens: int = 1024, out_of_memory: bool = False) -> Result:
    """Of a case that is estimated at 10 GiB in tensors and 11 GiB reserved."""
    peaks = {"host": GIB, "device allocated": 8 * GIB, "device reserved": int(reserved * GIB)}
    phases = {
        "load": PhaseMeasurement({"host": GIB, "device allocated": 0, "device reserved": 0}, 1),
        "update": PhaseMeasurement(peaks, 3, 0.1, 0.1),
        STEP: PhaseMeasurement({}, 3, 0.2, 0.3),
    }
    return Result(
        case=Case("0.5B", "sft", False, True, 512),
        machine=MACHINE,
        date="2026-11-23T01:00:00+00:00",
        fits=True,
        estimated={
            "load": {"weights": 2 * GIB},
            "loss": {"weights": 9 * GIB, "context": GIB},
            "backward": {"weights": 10 * GIB, "fragmentation": GIB, "context": GIB},
        },
        margin=0.1,
        step_seconds=0.4,
        outcome="error" if out_of_memory else "complete",
        out_of_memory=out_of_memory,
        message="torch.OutOfMemoryError" if out_of_memory else None,
        measured=Measurement(phases, tokens, "update", out_of_memory, VERSIONS),
        seconds=30.0,
    )


def test_the_peak_of_the_steps_is_held_against_the_phases_that_lie_in_them() -> None:
    found = result(reserved=10.0)
    assert found.figures == {
        "allocated": (10 * GIB, 8 * GIB),
        "reserved": (11 * GIB, 10 * GIB),
    }
    assert report.summary([found, result(reserved=11.0)])[:2] == [
        "allocated: 2 cases, median 25.0%, worst +25.0%",
        "reserved: 2 cases, median 5.0%, worst +10.0%",
    ]
    assert "| 8.00 / 10.00 | 10.00 / 11.00 | +25.0% / +10.0% | 0.20 (0.40) |" in report.markdown(
        [found]
    )


def test_rows_that_were_shorter_than_meant_are_no_measurement() -> None:
    found = result(tokens=600)
    assert not found.figures
    assert report.verdict(found) == "failed: 600 tokens a pass, not 1024"


def test_running_out_of_memory_is_a_result() -> None:
    found = replace(result(out_of_memory=True), measured=None)
    assert report.verdict(found) == "out of memory in `?`, NOT as estimated"
    right = replace(found, fits=False)
    assert report.summary([found, right])[-1] == "fits or not: right of 1 of 2 cases"


def test_the_page_shows_what_the_committed_results_say() -> None:
    results = [
        each
        for file in sorted((ROOT / "benchmarks" / "results" / "gpu_memory").glob("*.jsonl"))
        for each in read(file)
    ]
    page = (ROOT / "docs" / "gpu-memory.md").read_text()
    shown = page.split("<!-- results -->\n")[1].split("<!-- end of results -->")[0]
    assert shown.strip() == report.markdown(results)


def test_nothing_is_in_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []
