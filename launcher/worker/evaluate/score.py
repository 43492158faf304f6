"""Scores of completions: by the reward model, and by the recipe's own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.recipe.library import LIBRARY, compared
from launcher.recipe.types import Score
from launcher.worker.evaluate.generate import Completion
from launcher.worker.ppo import reward
from launcher.worker.rewards.build import function_judge

Values = list[float | None]
"""One a completion; None where there is nothing to judge it by."""
Function = Callable[[Sequence[Mapping[str, Any]], Sequence[Completion]], Values]


def by_reward_model(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    written_with: Any,
    batch_size: int,
    on_batch: Callable[[], None],
) -> list[float]:
    """The reward model's score of each completion, read as PPO has it read them.

    `tokenizer` is the reward model's own, `written_with` that of the completions.
    """
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
            written_with=written_with,
            ended=[c.ended for c in batch],
        )
        pad = tokenizer.pad_token_id
        scores += reward.score(model, sequences, pad, batch_size, model.device).tolist()
        on_batch()
    return scores


def as_answer(prompt: Any, text: str) -> Any:
    """A completion in the form of its prompt: text, or a list with the assistant's message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def reader(folder: str, written_with: Any, *, talks: bool, trust_remote_code: bool = False) -> Any:
    """The tokenizer that the reward model in `folder` reads with: its own, else the candidates'.

    Raises UsageError where it has other tokens and, though the prompts are messages (`talks`), no
    chat template.
    """
    from transformers import AutoTokenizer

    if Path(folder).is_dir() and not (Path(folder) / "tokenizer_config.json").is_file():
        return written_with
    try:
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return written_with
    same = reward.same_tokens(own, written_with)
    if own.chat_template is None and same:
        return written_with
    if own.chat_template is None and talks:
        raise UsageError(
            f"the reward model {folder} has no chat template, and the prompts are messages",
            hint="save its tokenizer with the template that it was trained with",
        )
    if own.pad_token is None:
        own.pad_token = own.eos_token
    return own


def function(
    label: str,
    score: Score,
    rows: Sequence[Mapping[str, Any]],
    copy_of: Callable[[str], Path] = Path,
) -> Function:
    """What `score` stands for, called as a reward is; `copy_of` gives the run's copy of a file.

    Raises UsageError for what cannot be used on `rows`.
    """
    judge = function_judge(label, score.function, score.options, copy_of)

    def judged(rows: Sequence[Mapping[str, Any]], completions: Sequence[Completion]) -> Values:
        prompts = [row["prompt"] for row in rows]
        answers = [
            as_answer(prompt, c.text) for prompt, c in zip(prompts, completions, strict=True)
        ]
        return judge(prompts, answers, [c.ids for c in completions], **_columns(rows))

    if compared(score.function, score.options) is None:
        return judged
    nothing = Completion(prompt_ids=[], ids=[], text="", ended=False)
    if all(value is None for value in judged(rows, [nothing] * len(rows))):
        of_the_library = "name the column of the answers with its option `column`"
        of_trl = "have the column solution hold them: numbers, or LaTeX"
        raise UsageError(
            f"the score {label} ({score.function}) finds no answer in any row of the data",
            hint=of_the_library if score.function in LIBRARY else of_trl,
        )
    return judged


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row.get(key) for row in rows] for key in rows[0] if key != "prompt"}
