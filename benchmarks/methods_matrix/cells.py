"""Which trainings the matrix is made of, and the recipe of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "data"

ADAPTERS: dict[str, dict[str, Any] | None] = {
    "full": None,
    "lora": {"method": "lora", "r": 8, "alpha": 16},
}
SETUPS: dict[str, dict[str, int]] = {
    "one": {"gpus": 1},
    "zero2": {"gpus": 2, "nodes": 1, "zero_stage": 2},
    "zero3": {"gpus": 2, "nodes": 1, "zero_stage": 3},
}
LEARNING = "seeds"
"""The setup of the cells that train longer, on one process, from three seeds."""
WORDS = {"one": "1 process", "zero2": "ZeRO-2", "zero3": "ZeRO-3", LEARNING: "3 seeds"}


@dataclass(frozen=True)
class Method:
    """One method's place in `recipes/tiny`, and how its trainings are made to fit the matrix."""

    recipe: str
    stage: str
    steps: int
    """Optimizer steps of a cell's training: enough that a signal meets it under way."""
    gives: str = "policy"
    others: tuple[str, ...] = ("eval",)
    """Stages of the recipe that a cell leaves out."""
    judge: bool = False
    """Whether it reads a reward model, which is trained once for all cells."""


METHODS: dict[str, Method] = {
    "sft": Method("tiny/sft", "sft", 40, others=()),
    "reward": Method("tiny/ppo", "rm", 100, "reward_model", ("sft", "ppo", "eval")),
    "dpo": Method("tiny/dpo", "dpo", 40),
    "kto": Method("tiny/kto", "kto", 40),
    "ppo": Method("tiny/ppo", "ppo", 40, others=("sft", "rm", "eval"), judge=True),
    "grpo": Method("tiny/grpo", "grpo", 12),
    "rloo": Method("tiny/rloo", "rloo", 12),
    "online_dpo": Method("tiny/online_dpo", "online_dpo", 16),
}


@dataclass(frozen=True)
class Cell:
    method: str
    adapter: str
    setup: str

    @property
    def name(self) -> str:
        return f"{self.method}-{self.adapter}-{self.setup}".replace("_", "-")


def cells(only: Iterable[str] = ()) -> list[Cell]:
    """Every cell, or those that fit all the words of `only`.

    A word is a method, an adapter or a setup; of words of one kind any one will do. Raises
    ValueError for a word that is none.
    """
    kinds: Sequence[Mapping[str, Any]] = (METHODS, ADAPTERS, WORDS)
    words = list(only)
    unknown = [word for word in words if not any(word in kind for kind in kinds)]
    if unknown:
        known = ", ".join(word for kind in kinds for word in kind)
        raise ValueError(f"{', '.join(unknown)}: not one of {known}")
    wanted = [[word for word in kind if word in words] or list(kind) for kind in kinds]
    return [Cell(m, a, s) for m in wanted[0] for a in wanted[1] for s in wanted[2]]


def recipe(cell: Cell, judge: str, *, following: bool) -> dict[str, Any]:
    """The document of a cell's run.

    `judge` is the folder of a trained reward model. With `following` another stage reads what was
    trained, and the trainer saves at its last step; without, no checkpoint is due before the end,
    so that the one of a stop is the one that was gone on from.
    """
    method = METHODS[cell.method]
    saved = method.steps if following else 100_000
    stage: dict[str, Any] = {
        "train": {"max_steps": method.steps, "save_steps": saved},
        "resources": SETUPS[cell.setup],
    }
    if method.gives == "reward_model":
        stage["model"] = "model"
    if method.judge:
        stage |= {"policy": "model", "reward_model": judge}
    if ADAPTERS[cell.adapter] is not None:
        stage["peft"] = ADAPTERS[cell.adapter]
    stages: dict[str, Any] = {method.stage: stage, **dict.fromkeys(method.others)}
    if following:
        stages["next"] = _reader(method)
    return {
        "launcher": 1,
        "name": cell.name + ("" if following else "-stopped"),
        "extends": method.recipe,
        "stages": stages,
    }


def _reader(method: Method) -> dict[str, Any]:
    """A stage of one process that cannot begin without what was made: it goes on from it, or
    judges by it."""
    made = f"stage:{method.stage}"
    if method.gives == "policy":
        data = {"path": f"{DATA}/sft.jsonl"}
        train = {"max_steps": 1, "max_length": 64}
        return {"method": "sft", "model": made, "data": data, "global_batch": 4, "train": train}
    return {
        "method": "evaluate",
        "candidates": {"base": "model"},
        "baseline": "base",
        "reward_model": made,
        "data": {"path": f"{DATA}/held_out.jsonl", "max_prompt_tokens": 64},
        "train": {"num_prompts": 8, "max_completion_length": 8},
    }
