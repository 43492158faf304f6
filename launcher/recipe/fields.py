"""The keys of `train:`, method by method: a snapshot of the installed TRL, and what bounds values.

`python -m launcher.worker.snapshot` writes the snapshot; a test holds it to the installed TRL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from launcher.recipe.choices import CHOICES
from launcher.recipe.methods import METHODS
from launcher.recipe.owned import OWNED

SNAPSHOT = Path(__file__).resolve().parent / "trl_fields.json"

_POSITIVE: dict[str, Any] = {"exclusiveMinimum": 0}
_NOT_NEGATIVE: dict[str, Any] = {"minimum": 0}
_COUNT: dict[str, Any] = {"minimum": 1}
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}

LIMITS: Mapping[str, dict[str, Any]] = {
    "learning_rate": _POSITIVE,
    "value_learning_rate": _POSITIVE,
    "num_train_epochs": _POSITIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "adam_beta1": {"minimum": 0, "exclusiveMaximum": 1},
    "adam_beta2": {"minimum": 0, "exclusiveMaximum": 1},
    "adam_epsilon": _POSITIVE,
    "label_smoothing_factor": _SHARE,
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "dataloader_num_workers": _NOT_NEGATIVE,
    "max_length": _COUNT,
    "max_completion_length": _COUNT,
    "temperature": _NOT_NEGATIVE,
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": _NOT_NEGATIVE,
    "min_p": _SHARE,
    "repetition_penalty": _POSITIVE,
    "kl_coef": _NOT_NEGATIVE,
    "cliprange": _POSITIVE,
    "cliprange_value": _POSITIVE,
    "vf_coef": _NOT_NEGATIVE,
    "gamma": _SHARE,
    "lam": _SHARE,
    "beta": _NOT_NEGATIVE,
    "num_generations": {"minimum": 2},
    "num_iterations": _COUNT,
    "steps_per_generation": _COUNT,
    "generation_batch_size": _COUNT,
    "num_ppo_epochs": _COUNT,
    "num_mini_batches": _COUNT,
    "missing_eos_penalty": _NOT_NEGATIVE,
    "num_prompts": _COUNT,
    "num_samples": _NOT_NEGATIVE,
    "repetition_ngram": _COUNT,
    "confidence": {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "bootstrap_samples": _COUNT,
    "vllm_gpu_memory_utilization": {"exclusiveMinimum": 0, "maximum": 1},
}
"""Values that no training survives, whatever the method. TRL's types do not say so."""

MAX_STEPS: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"enum": [-1]}],
    "default": -1,
}
"""TRL's -1 stands for \"by epochs\"; zero would train nothing."""


@dataclass(frozen=True)
class Fields:
    """What `train:` may hold for one method."""

    config: str
    """The config's class name."""
    schemas: Mapping[str, Mapping[str, Any]]
    """Key → JSON Schema, without the keys that the launcher owns or the method refuses."""
    refused: Mapping[str, str]
    """Key that the config inherits and does not take → the way out."""


def trl_version() -> str:
    """The TRL whose keys recipes are checked against."""
    return str(_snapshot()["trl"])


def marked_templates() -> frozenset[str]:
    """SHA-256 of the chat templates that TRL replaces by marked ones for `assistant_only_loss`."""
    return frozenset(_snapshot()["templates"])


def trl_rewards() -> Mapping[str, Any]:
    """Function of `trl.rewards` → its `options` (JSON Schemas; one without a default is needed),
    whether it is `made` by being called with them, and whether it needs math-verify (`math`)."""
    rewards: Mapping[str, Any] = _snapshot()["rewards"]
    return rewards


@lru_cache
def fields(method: str) -> Fields:
    """The keys of a method of `METHODS`; none where it has no config."""
    if METHODS[method].config is None:
        return Fields(method, {}, {})
    stated = _snapshot()["methods"][method]
    refused: dict[str, str] = stated["refused"]
    bounds = {**LIMITS, **{key: {"enum": [*each]} for key, each in CHOICES.get(method, {}).items()}}
    if METHODS[method].online:
        # A policy that trains is asked how likely its answers were, which greedy ones are not.
        bounds["temperature"] = _POSITIVE
    schemas = {
        key: MAX_STEPS if key == "max_steps" else {**schema, **bounds.get(key, {})}
        for key, schema in stated["fields"].items()
        if key not in refused and key not in OWNED
    }
    return Fields(stated["config"], schemas, refused)


@lru_cache
def _snapshot() -> Any:
    return msgspec.json.decode(SNAPSHOT.read_bytes())
