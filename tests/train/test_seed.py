"""What a stage makes anew comes from its seed."""

from __future__ import annotations

from pathlib import Path

from tests.train import offline


def test_a_reward_models_head_begins_as_the_stages_seed_says(tmp_path: Path) -> None:
    def weights(place: str, seed: int) -> bytes:
        words = ("train.max_steps=1", f"seed={seed}")
        return offline.trained(tmp_path / place, "rm", *words).weights

    once = weights("once", 5)
    assert weights("again", 5) == once
    assert weights("other", 6) != once
