"""Fresh clusters for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.devcluster import DevCluster, start, stop
from tests.slurm.shell import Shell


@pytest.fixture(scope="session")
def dev_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Without accounting: four idle nodes, partitions a100, h100 and the preemptible preempt."""
    state = tmp_path_factory.mktemp("slurm")
    try:
        yield start(state)
    finally:
        stop(state)


@pytest.fixture(scope="session")
def dev_cluster_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """The same with slurmdbd."""
    state = tmp_path_factory.mktemp("slurm-accounting")
    try:
        yield start(state, "--accounting")
    finally:
        stop(state)


@pytest.fixture
def shell(dev_cluster: DevCluster, tmp_path: Path) -> Shell:
    """A shell in a folder that would break a script which forgot to quote."""
    home = tmp_path / "a folder with 'quotes' & $signs"
    home.mkdir()
    return Shell(dev_cluster, home)
