"""A canary for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.canary import Canary


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")
