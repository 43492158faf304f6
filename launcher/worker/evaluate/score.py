"""Scores of completions: by the reward model, and by the recipe's own functions."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.worker.evaluate.generate import Completion
from launcher.worker.ppo import reward

Score = Callable[..., list[float]]
"""`score(prompts, completions, **columns)`, with one entry a row in every argument."""


def by_reward_model(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    batch_size: int,
    on_batch: Callable[[], None],
) -> list[float]:
    """The reward model's score of each completion, read as PPO has it read them."""
    scores: list[float] = []
    for start in range(0, len(completions), batch_size):
        batch = completions[start : start + batch_size]
        asked = list(prompts[start : start + batch_size])
        sequences = reward.scorer_input(
            asked,
            [as_answer(prompt, c.text) for prompt, c in zip(asked, batch, strict=True)],
            [c.prompt_ids for c in batch],
            [c.ids for c in batch],
            tokenizer,
            {},
        )
        pad = tokenizer.pad_token_id
        scores += reward.score(model, sequences, pad, batch_size, model.device).tolist()
        on_batch()
    return scores


def as_answer(prompt: Any, text: str) -> Any:
    """A completion in the form of its prompt: text, or a list with the assistant's message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def by_function(
    name: str, function: Score, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> list[float]:
    """One score a row. Raises UsageError where the function gives anything else."""
    if not rows:
        return []
    prompts = [row["prompt"] for row in rows]
    answers = [as_answer(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    others = {key: [row.get(key) for row in rows] for key in rows[0] if key != "prompt"}
    scores = [float(value) for value in function(prompts, answers, **others)]
    if len(scores) != len(rows) or not all(map(math.isfinite, scores)):
        raise UsageError(
            f"the score {name} gave {len(scores)} values for {len(rows)} completions, "
            f"{sum(map(math.isfinite, scores))} of them finite",
            hint="return one finite number for each completion",
        )
    return scores


def load(reference: str) -> Score:
    """The function that `/abs/file.py:name` refers to. Raises UsageError."""
    path, _, name = reference.rpartition(":")
    if not Path(path).is_file():
        raise UsageError(f"there is no score file {path}", hint="write FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"launcher_score_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Score | None = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{path} has no function {name}", hint="write FILE.py:FUNCTION")
    return function
