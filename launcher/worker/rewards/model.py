"""A trained reward model as a judge, reading through its own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launcher.errors import UsageError
from launcher.worker.ppo import reward
from launcher.worker.rewards.judge import Judge


class ModelJudge(Judge):
    """The score of a one-label sequence classifier, as it is: no sigmoid, no clipping.

    It is read in chunks of `batch_size`, since a whole rollout at once would take more memory than
    a training step.
    """

    def __init__(self, label: str, model: Any, tokenizer: Any, batch_size: int) -> None:
        super().__init__(label)
        self._model, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self._device: Any = None
        self._template: dict[str, Any] = {}

    def attach(self, trainer: Any) -> None:
        from trl.models import prepare_deepspeed

        super().attach(trainer)
        accelerator = trainer.accelerator
        self._device = accelerator.device
        self._template = getattr(trainer, "chat_template_kwargs", {})
        self._model = (
            prepare_deepspeed(self._model, accelerator)
            if trainer.is_deepspeed_enabled
            else accelerator.prepare_model(self._model, evaluation_mode=True, device_placement=True)
        )

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: dict[str, Any],
    ) -> list[float]:
        talks = not isinstance(prompts[0], str)
        read = self._of_messages if talks else self._of_text
        sequences = [
            read(prompt, completion, self.ended(ids))
            for prompt, completion, ids in zip(prompts, completions, completion_ids, strict=True)
        ]
        pad = self._tokenizer.pad_token_id
        scores = reward.score(self._model, sequences, pad, self._batch_size, self._device)
        return [float(score) for score in scores]

    def _of_messages(self, prompt: list[Any], completion: list[Any], _ended: bool) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise UsageError(
                f"the reward model of {self.label} has no chat template, and the prompts are"
                " messages",
                hint="train it on messages, or save its tokenizer with the template it was given",
            )
        text = self._tokenizer.apply_chat_template(
            prompt + completion, tokenize=False, **self._template
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _of_text(self, prompt: str, completion: str, ended: bool) -> list[int]:
        # As TRL's RewardTrainer read it: an answer ends with the end token, if it ends.
        text = prompt + completion + (self._tokenizer.eos_token if ended else "")
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids
