"""Wherever a command that acts is killed, the next one ends with exactly one chain."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.devcluster import DevCluster, start, stop
from tests.slurm.swept import KILLED

SAMPLE = 2
SEED = 5
# Those that are killed in every run of the tests; how the others begin is the same or takes long.
SAMPLED = ("submit", "submit again", "resume --from", "advance", "cancel")
# At the least, so that a sweep which meets nothing is seen: calls that change something.
CALLS = {"submit": 400, "resume --from": 100, "resume --from, then resume": 100}


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[DevCluster]:
    """Nobody else's jobs are in its queue."""
    state = tmp_path / "slurm"
    try:
        yield start(state)
    finally:
        stop(state)


def sweep(cluster: DevCluster, home: Path, points: str, *commands: str) -> Any:
    """What `tests.slurm.sweep` reports, in a process that no other thread is in."""
    home.mkdir()
    conf = cluster.env["SLURM_CONF"]
    words = [sys.executable, "-m", "tests.slurm.sweep", conf, str(home), points, str(SEED)]
    done = subprocess.run(
        [*words, *commands], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_a_command_that_is_killed_anywhere_is_completed_by_the_next(
    own_cluster: DevCluster, tmp_path: Path
) -> None:
    report = sweep(own_cluster, tmp_path / "home", str(SAMPLE), *SAMPLED)
    assert [found["wrong"] for found in report.values()] == [[]] * len(SAMPLED)
    assert [found["hit"] for found in report.values()] == [SAMPLE] * len(SAMPLED)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("command", KILLED)
def test_a_command_is_killed_at_each_call_that_changes_something(
    own_cluster: DevCluster, tmp_path: Path, command: str
) -> None:
    found = sweep(own_cluster, tmp_path / "home", "all", command)[command]
    print(f"{command}: {found['hit']} of {found['points']} calls in {found['seconds']} s")
    print(f"{found['calls']}, before {found['then']}")
    assert found["wrong"] == []
    assert found["hit"] == found["points"] >= CALLS.get(command, 30)
