"""A user's shell on a machine without Slurm."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.machine import LocalShell, processes_of


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[LocalShell]:
    """In a folder that would break a script which forgot to quote; nothing of it lives on."""
    home = tmp_path / "a folder with 'quotes' & $signs"
    home.mkdir()
    yield LocalShell(home)
    for pid in processes_of(home):
        os.kill(pid, signal.SIGKILL)
