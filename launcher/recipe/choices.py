"""Values that TRL refuses only when it trains: its configs' types say no more than text.

A test holds them to what the installed TRL's sources compare with.
"""

from __future__ import annotations

from collections.abc import Mapping

DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
"""Every `loss_type` of the installed TRL's DPO, which takes several at once."""

CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sft": {
        "loss_type": ("nll", "dft", "chunked_nll"),
        "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    },
    "kto": {"loss_type": ("kto", "apo_zero_unpaired")},
    "grpo": {
        "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"),
        "scale_rewards": ("group", "batch", "none"),
        "importance_sampling_level": ("token", "sequence"),
        "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
        "vllm_importance_sampling_mode": (
            *("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
        ),
    },
    "online_dpo": {"loss_type": ("sigmoid", "ipo")},
}
"""Method → key of `train` → the values that it may have."""
