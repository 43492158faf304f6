"""The keys that a login node checks are those of the installed TRL and of our own configs."""

from __future__ import annotations

from launcher.worker import snapshot


def test_the_committed_snapshot_is_that_of_the_installed_training_stack() -> None:
    current = snapshot.TARGET.read_text(encoding="utf-8")
    assert current == snapshot.text(), "write it anew: python -m launcher.worker.snapshot"
