"""A wrong estimate is caught by what the runs measured, on a real Slurm."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.shell import Shell

TINY = str(Path(__file__).parents[2] / "recipes" / "tiny" / "ppo.yaml")
RUNS = 3
# What is left of an error after so many runs that agree, as a share of its logarithm (see
# launcher.plan.calibration.PRIOR_RUNS), and how far runs of the same recipe differ.
LEFT, SCATTER = 1 / (RUNS + 1), 0.06
# `launcher`, with all that the formula says multiplied by a factor.
PLANTED = """
import sys
from dataclasses import replace
from launcher.cli.main import main
from launcher.memory import estimate as formula
from launcher.memory.types import Phase
right = formula.estimate
def wrong(*given, **named):
    found = right(*given, **named)
    phases = (Phase(p.name, {k: int(v * FACTOR) for k, v in p.items.items()}) for p in found.phases)
    return replace(found, phases=tuple(phases))
formula.estimate = wrong
sys.argv[0] = "launcher"
main()
"""


class Misled(Shell):
    """A shell whose `launcher` estimates wrongly; its jobs are the ordinary ones."""

    def __init__(self, shell: Shell, factor: float) -> None:
        self.__dict__.update(shell.__dict__)
        self.factor = factor

    def start(self, *words: str) -> subprocess.Popen[str]:
        program = PLANTED.replace("FACTOR", str(self.factor))
        return self.start_as((sys.executable, "-c", program), *words)


def peaks(plan: dict[str, Any]) -> dict[str, int]:
    """Stage → bytes of its highest phase."""
    return {
        stage["stage"]["name"]: max(
            sum(phase["items"].values()) for phase in stage["estimate"]["phases"]
        )
        for stage in plan["stages"]
    }


@pytest.mark.long
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_planted_factor_is_caught_after_three_runs(shell: Shell, factor: float) -> None:
    misled = Misled(shell, factor)
    before = misled.data("plan", TINY)["plan"]
    started = [misled.start("submit", TINY, "--new", "--wait", "--json") for _ in range(RUNS)]
    for process in started:
        _, err = process.communicate(timeout=550)
        assert process.returncode == 0, err
    after = misled.data("plan", TINY)["plan"]
    assert before["evidence"] == ""
    assert after["evidence"] == misled.data("calibrate")["evidence"] != ""
    runs = [run["run"] for run in misled.data("list")]
    for stage in after["stages"]:
        name = stage["stage"]["name"]
        assert stage["calibration"]["runs"] == RUNS
        measured = max(shell.attempts(run, name)[0]["peak_bytes"]["host"] for run in runs)
        was, now = (abs(math.log(peaks(each)[name] / measured)) for each in (before, after))
        print(f"{name}: {was:.3f} → {now:.3f}")
        assert was > 0.4
        assert now <= LEFT * was + SCATTER
        assert stage["estimate"]["phases"][0]["items"]["correction"] != 0
    # What the right formula says is not corrected by what the wrong one missed.
    assert {s["calibration"]["runs"] for s in shell.data("plan", TINY)["plan"]["stages"]} == {0}
