"""Whether a method makes what it is after better, by more than chance does, whatever the seed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.methods_matrix.cells import METHODS, Cell

SEEDS = (1, 2, 3)
WINDOW = 4
"""Steps at either end whose mean counts."""
SCHOOL: dict[str, float] = {"max_steps": 120, "learning_rate": 5e-3}
"""How the policy that all but `sft` start from was trained."""
HALF_WAY: dict[str, float] = {"max_steps": 30, "learning_rate": 5e-3}
"""The same for PPO: a policy that has learned its data has nearly all that a reward model can give.
"""


@dataclass(frozen=True)
class Goal:
    """What a method is to raise (or, with a minus, lower) from its first steps to its last."""

    figure: str
    """As the trainer logs it."""
    full: float
    """How far at least, trained whole."""
    lora: float
    train: dict[str, Any] = field(default_factory=dict)
    lora_rate: float = 1
    """By how much the learning rate of an adapter is above that of a whole model."""
    school: dict[str, float] = field(default_factory=lambda: SCHOOL)
    """How the policy was trained that it starts from."""

    @property
    def name(self) -> str:
        return self.figure.lstrip("-")

    def least(self, adapter: str) -> float:
        return self.full if adapter == "full" else self.lora


_SAMPLED: dict[str, Any] = {"max_steps": 120, "learning_rate": 2e-3}
GOALS: dict[str, Goal] = {
    "sft": Goal("-loss", 2.0, 0.3, {"max_steps": 40, "learning_rate": 5e-3}),
    "reward": Goal("margin", 1.0, 0.5, {"max_steps": 40, "learning_rate": 2e-3}),
    "dpo": Goal("rewards/margins", 1.0, 0.5, {"max_steps": 24, "learning_rate": 2e-3}),
    "kto": Goal("rewards/margins", 1.0, 0.4, {"max_steps": 24, "learning_rate": 2e-3}),
    "ppo": Goal("reward", 0.5, 0.3, {"max_steps": 160, "learning_rate": 1e-3}, school=HALF_WAY),
    "grpo": Goal("reward", 0.2, 0.08, _SAMPLED, lora_rate=2),
    # TRL's penalty for leaving the reference holds a small adapter where it is.
    "rloo": Goal("reward", 0.2, 0.08, {**_SAMPLED, "beta": 0.0}, lora_rate=2),
    "online_dpo": Goal("objective/scores", 0.1, 0.05, {"max_steps": 40, "learning_rate": 5e-3}),
}


def recipe(cell: Cell, seed: int, policy: str, judge: str) -> dict[str, Any]:
    """The document of one seed's run. All but `sft` start from `policy`, a folder: adapters leave
    the head as it is, and one of random weights can hardly prefer a token to another."""
    method, goal = METHODS[cell.method], GOALS[cell.method]
    train = {**goal.train, "lr_scheduler_type": "constant", "save_steps": 100_000}
    stage: dict[str, Any] = {"train": train}
    if cell.adapter == "lora":
        train["learning_rate"] *= goal.lora_rate
        stage["peft"] = {"r": 16, "alpha": 64}
    if cell.method != "sft":
        stage["model" if method.gives == "reward_model" else "policy"] = policy
    if method.judge:
        stage["reward_model"] = judge
    return {
        "launcher": 1,
        "name": f"{cell.name}-{seed}",
        "extends": method.recipe,
        "seed": seed,
        "stages": {method.stage: stage, **dict.fromkeys(method.others)},
    }


def gain(metrics: Path, figure: str) -> float:
    """By how much the mean of the last steps is above that of the first; below, with a minus."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    name = figure.lstrip("-")
    # What is logged at the end, over all steps, has the training's time beside it.
    told = [float(row[name]) for row in rows if name in row and "train_runtime" not in row]
    first, last = told[:WINDOW], told[-WINDOW:]
    risen = sum(last) / len(last) - sum(first) / len(first)
    return -risen if figure.startswith("-") else risen
