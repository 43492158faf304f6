"""A login node is shared: planning and looking take a fraction of a second of its processor."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.unit.command import ROOT, launcher


def cpu_seconds(*words: str | Path, folder: Path) -> float:
    """User and system time of one command: the best of three."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        launcher(*words, folder=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.parametrize("cluster", ["a100_40", "h100_80", "mixed"])
def test_a_ppo_chain_is_planned_in_half_a_second(cluster: str, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "ppo_7b.yaml"
    words = ("submit", recipe, "--dry-run", "--cluster", cluster)
    assert cpu_seconds(*words, folder=tmp_path) < 0.5


def test_looking_takes_less(tmp_path: Path) -> None:
    assert cpu_seconds("list", folder=tmp_path) < 0.4
