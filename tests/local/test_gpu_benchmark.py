"""The benchmark of GPU memory runs its cases, so that it works the first time it meets a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_cases.case import small
from benchmarks.gpu_cases.result import read
from tests.unit.command import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_memory.py"


def benchmark(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "methods",
    [("sft", "ppo"), pytest.param(("reward", "dpo", "grpo"), marks=pytest.mark.long)],
    ids=" ".join,
)
def test_every_case_is_measured_once_and_reported(methods: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    cpu = ("--device", "cpu", "--small", "--methods", *methods, "--out", str(out))
    cases = {case for case in small() if case.method in methods}
    assert f"resident: {len(cases)} cases" in benchmark(*cpu)
    results = read(out)
    assert {result.case for result in results} == cases
    for result in results:
        assert result.outcome == "complete"
        assert result.measured is not None
        # Every row is as long as it is meant to be, to the token.
        assert result.measured.tokens == result.case.tokens
        assert {"load", "update", "optimizer step"} <= {name for name, _ in result.by_phase()}
    written = out.read_bytes()
    assert f"0 cases, {len(cases)} done before" in benchmark(*cpu)
    assert out.read_bytes() == written
    assert f"| {methods[0]} tiny " in benchmark("--report", str(out))
