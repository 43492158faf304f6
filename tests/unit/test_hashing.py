"""Who hashes which file of a checkpoint."""

from __future__ import annotations

from launcher.worker.hashing import shares

SIZES = {
    "model.safetensors": 40,
    "optimizer.pt": 80,
    "trainer_state.json": 1,
    "rng_state_5.pth": 1,
    "rollout_3.safetensors": 9,
    "global_step4/bf16_zero_pp_rank_6_mp_rank_00_optim_states.pt": 70,
    "value_head.safetensors": 30,
}


def test_a_rank_hashes_what_it_wrote_and_rank_0_shares_with_its_node() -> None:
    assert shares(SIZES, world=8, per_node=2) == {
        "optimizer.pt": 0,
        "model.safetensors": 1,
        "value_head.safetensors": 1,
        "trainer_state.json": 1,
        "rng_state_5.pth": 5,
        "rollout_3.safetensors": 3,
        "global_step4/bf16_zero_pp_rank_6_mp_rank_00_optim_states.pt": 6,
    }


def test_one_rank_hashes_all() -> None:
    assert set(shares({"a": 1, "rng_state.pth": 2}, world=1, per_node=1).values()) == {0}
