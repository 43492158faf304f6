"""Discovery on the real Slurm finds what the shipped profile of it says."""

from __future__ import annotations

from dataclasses import replace

from launcher.cluster.profile import dump_profile, load_profile
from launcher.cluster.reading import parse_profile
from launcher.scheduler.discover import discover
from tests.slurm.devcluster import DevCluster


def test_the_dev_cluster_is_discovered_as_its_profile_describes_it(
    dev_cluster: DevCluster,
) -> None:
    def run(argv: list[str], timeout: float = 30) -> str:
        return dev_cluster.run(*argv, timeout=timeout)

    found = discover(run, "dev")
    # No command of Slurm tells the network.
    assert replace(found, interconnect="none") == load_profile("dev")
    assert parse_profile(dump_profile(found), "dev.yaml") == found
