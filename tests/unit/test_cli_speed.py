"""A login node is shared: planning and looking take a fraction of a second of its processor."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.command import ROOT, launcher

FLOORS = 55
"""As many times what Python takes to start and end count as 0.4 s: machines are shared and differ,
and one that is twice as slow at that moment is so at both."""


def spent(work: Callable[[], object]) -> float:
    """User and system time of the processes that `work` runs: the best of three."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def assert_cheap(*words: str | Path, folder: Path) -> None:
    floor = spent(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    seconds = spent(lambda: launcher(*words, folder=folder))
    assert seconds < max(0.4, FLOORS * floor)


@pytest.mark.parametrize("cluster", ["a100_40", "h100_80", "mixed", "dev"])
def test_a_ppo_chain_is_planned_in_a_fraction_of_a_second(cluster: str, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "ppo_7b.yaml"
    assert_cheap("submit", recipe, "--dry-run", "--cluster", cluster, folder=tmp_path)


def test_looking_takes_less(tmp_path: Path) -> None:
    assert_cheap("list", folder=tmp_path)
