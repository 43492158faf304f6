"""Names that TRL and transformers once used, and the name in the TRL that recipes are read for."""

from __future__ import annotations

from collections.abc import Mapping

RENAMES: Mapping[str, str] = {
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "response_length": "max_completion_length",
    "evaluation_strategy": "eval_strategy",
    # A `warmup_steps` below one is a share of all steps, as the ratio was.
    "warmup_ratio": "warmup_steps",
    "init_kl_coef": "kl_coef",
    "ppo_epochs": "num_ppo_epochs",
    "num_train_steps": "max_steps",
}
"""Old → new. Applied with a warning where the method's config has the new name alone."""
