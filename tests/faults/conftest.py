"""Clusters and undisturbed runs that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.harness import Harness


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with Harness(tmp_path_factory.mktemp("faults")) as made:
        yield made
