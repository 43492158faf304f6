"""What is disturbed: small recipes of the tiny model, with steps enough to hit one of them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
DATA = TINY / "data"
STEPS = 24
SAVE = 6
"""Steps between two checkpoints."""
SEED = 7

_SFT: dict[str, Any] = {
    "method": "sft",
    "data": {"path": str(DATA / "sft.jsonl"), "rows": 192, "mean_tokens": 38},
    "global_batch": 4,
    "train": {
        "learning_rate": 2e-3,
        "max_steps": STEPS,
        "max_length": 48,
        "logging_steps": 1,
        "save_steps": SAVE,
    },
    "seed": SEED,
}
_REWARD: dict[str, Any] = {
    "method": "reward",
    "model": "stage:sft",
    "data": {"path": str(DATA / "preference.jsonl"), "rows": 128, "mean_tokens": 40},
    "global_batch": 4,
    "train": {
        "learning_rate": 1e-3,
        "max_steps": 12,
        "max_length": 48,
        "logging_steps": 1,
        "save_steps": SAVE,
    },
    "seed": SEED,
}
_PPO: dict[str, Any] = {
    "method": "ppo",
    "policy": "stage:sft",
    "reward_model": "stage:rm",
    "data": {
        "path": str(DATA / "prompts.jsonl"),
        "rows": 96,
        "mean_tokens": 19,
        "max_prompt_tokens": 48,
    },
    "global_batch": 4,
    "train": {
        "learning_rate": 1e-4,
        "max_steps": 12,
        "max_completion_length": 8,
        "num_ppo_epochs": 2,
        "logging_steps": 1,
        "save_steps": SAVE,
    },
    "seed": SEED,
}
_GRPO: dict[str, Any] = {
    "method": "grpo",
    "data": {
        "path": str(DATA / "prompts.jsonl"),
        "rows": 96,
        "mean_tokens": 19,
        "max_prompt_tokens": 48,
    },
    "rewards": {"early": "REWARDS:early"},
    "global_batch": 8,
    "train": {
        "learning_rate": 1e-3,
        "max_steps": STEPS,
        "num_generations": 4,
        "max_completion_length": 8,
        "logging_steps": 1,
        "save_steps": SAVE,
    },
    "seed": SEED,
}
_EVALUATE: dict[str, Any] = {
    "method": "evaluate",
    "candidates": {"base": "model"},
    "baseline": "base",
    "data": {"path": str(DATA / "held_out.jsonl"), "rows": 32, "mean_tokens": 19},
    "train": {"max_completion_length": 48},
    "seed": SEED,
}


@dataclass(frozen=True)
class Scene:
    """A recipe without its name."""

    name: str
    stages: Mapping[str, Any]
    target: str
    """The stage that is disturbed."""
    resources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimizer steps of the disturbed stage."""
        return int(self.stages[self.target]["train"].get("max_steps", 0))

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages that leave weights."""
        return tuple(n for n, stage in self.stages.items() if stage["method"] != "evaluate")

    def recipe(self, name: str, rewards: Path) -> dict[str, Any]:
        """The document; `rewards` is the file with the score function."""
        stages = deepcopy(dict(self.stages))
        for stage in stages.values():
            for key, value in stage.get("rewards", {}).items():
                stage["rewards"][key] = value.replace("REWARDS", str(rewards))
        return {
            "launcher": 1,
            "name": name,
            "model": str(TINY / "model"),
            "dtype": "float32",
            "resources": {"gpus": 1, "time": "15m", "partition": "a100", **self.resources},
            "stages": stages,
        }


_EVALUATED = {
    **_SFT,
    "data": {**_SFT["data"], "eval_path": str(DATA / "sft.jsonl")},
    "train": {**_SFT["train"], "eval_strategy": "steps", "eval_steps": 4},
}
SFT = Scene("one process", {"sft": _SFT}, "sft")
EVALUATED = Scene("one process, evaluated as it trains", {"sft": _EVALUATED}, "sft")
TWO = Scene("two processes on two nodes", {"sft": _SFT}, "sft", {"gpus": 2, "nodes": 2})
GRPO = Scene("GRPO", {"grpo": _GRPO}, "grpo")
EVALUATE = Scene("SFT, then its evaluation", {
    "sft": {**_SFT, "train": {**_SFT["train"], "max_steps": SAVE}},
    "eval": {**_EVALUATE, "candidates": {"base": "model", "sft": "stage:sft"}},
}, "eval")  # fmt: skip
SHORT = Scene("SFT, then a reward model", {
    "sft": {**_SFT, "train": {**_SFT["train"], "max_steps": 12}},
    "rm": _REWARD,
}, "sft")  # fmt: skip
CHAIN = Scene("SFT, reward model, PPO", {"sft": _SFT, "rm": _REWARD, "ppo": _PPO}, "sft")
PPO = Scene("SFT, reward model, PPO", {"sft": _SFT, "rm": _REWARD, "ppo": _PPO}, "ppo")
LONG = Scene("a longer SFT, reward model, PPO", {
    "sft": {**_SFT, "train": {**_SFT["train"], "max_steps": 60}},
    "rm": {**_REWARD, "train": {**_REWARD["train"], "max_steps": 48}},
    "ppo": {**_PPO, "train": {**_PPO["train"], "max_steps": 36}},
}, "sft")  # fmt: skip
PREEMPTED = Scene("one process, in a partition of jobs that give way", {"sft": _SFT}, "sft",
                  {"partition": "preempt"})  # fmt: skip
