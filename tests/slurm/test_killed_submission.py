"""Wherever a submission is killed, the same command ends with exactly one chain."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.devcluster import DevCluster, start, stop

SAMPLE = 8
SEED = 5


@pytest.fixture
def idle_cluster(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster that starts no job, so that what is queued can be counted."""
    state = tmp_path / "slurm"
    try:
        cluster = start(state)
        cluster.run("scontrol", "update", "nodename=ALL", "state=drain", "reason=counting")
        yield cluster
    finally:
        stop(state)


def sweep(cluster: DevCluster, home: Path, *words: str) -> Any:
    """What `tests.slurm.sweep` reports, in a process that no other thread is in."""
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.slurm.sweep", cluster.env["SLURM_CONF"], str(home), *words],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_a_submission_that_is_killed_anywhere_is_completed_by_the_same_command(
    idle_cluster: DevCluster, tmp_path: Path
) -> None:
    report = sweep(idle_cluster, tmp_path / "home", str(SAMPLE), str(SEED))
    assert report["wrong"] == []
    assert report["killed"] >= SAMPLE - 1


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_submission_is_killed_at_each_call_that_changes_something(
    idle_cluster: DevCluster, tmp_path: Path
) -> None:
    report = sweep(idle_cluster, tmp_path / "home")
    print(f"killed at {report['killed']} of {report['points']} calls")
    assert report["wrong"] == []
    assert report["points"] > 100
