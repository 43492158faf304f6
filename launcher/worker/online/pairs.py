"""Online DPO: what is added to TRL's OnlineDPOTrainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trl.experimental.online_dpo import OnlineDPOTrainer

from launcher.worker.checkpoint import Committed
from launcher.worker.rewards.judge import Judge


class OnlineDpo(Committed, OnlineDPOTrainer):
    """TRL's trainer, with three differences.

    Gradients are the mean over a step's micro-batches. TRL's are their sum without DeepSpeed, so
    that the learning rate would depend on how the plan cuts a step.
    A list of `beta` follows the epoch. TRL indexes it with a fraction.
    Rewards and completions are logged under the names that GRPO logs them, too.
    """

    def __init__(self, *, judges: Sequence[Judge], **options: Any) -> None:
        self.on_phase: Callable[[str], None] = lambda _phase: None
        """Told of each phase of a step as it begins: `rollout`, `score`, `update`."""
        super().__init__(reward_funcs=list(judges), **options)
        self.stats |= {name: [] for name in _FIGURES}
        for judge in judges:
            judge.attach(self)

    @property
    def beta(self) -> float:
        if not isinstance(self._beta, list):
            return float(self._beta)
        epoch = min(int(self.state.epoch or 0), len(self._beta) - 1)
        return float(self._beta[epoch])

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        accelerator = self.accelerator
        if not self.is_deepspeed_enabled:
            # What `accelerator.backward` divides the loss by; DeepSpeed divides by itself.
            accelerator.gradient_accumulation_steps = self.current_gradient_accumulation_steps
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        finally:
            if not self.is_deepspeed_enabled:
                accelerator.gradient_accumulation_steps = 1

    def _generate(self, model: Any, prompts: Any, images: Any = None) -> Any:
        self.on_phase("rollout")
        generated = super()._generate(model, prompts, images)
        self.on_phase("score")
        return generated

    def _calculate_rewards_from_functions(
        self, prompts: Any, completions: Any, completion_ids_list: Any, **columns: Any
    ) -> Any:
        rewards = super()._calculate_rewards_from_functions(
            prompts, completions, completion_ids_list, **columns
        )
        self._log_completions(rewards, completion_ids_list)
        self.on_phase("update")
        return rewards

    def _log_completions(self, rewards: Any, completion_ids: list[list[int]]) -> None:
        import torch

        judge = self.reward_funcs[0]
        first, second = rewards.chunk(2)
        lengths = [len(judge.written(ids)) for ids in completion_ids]
        open_ended = [not judge.ended(ids) for ids in completion_ids]
        own = torch.tensor([lengths, open_ended], dtype=torch.float32, device=rewards.device)
        gathered = self.accelerator.gather(rewards)
        ties = self.accelerator.gather(torch.isclose(first, second).float())
        figures = self.accelerator.gather(own.T.contiguous())
        values = (
            gathered.mean(), gathered.std(), ties.mean(), figures[:, 0].mean(), figures[:, 1].mean()
        )  # fmt: skip
        for name, value in zip(_FIGURES, values, strict=True):
            self.stats[name].append(float(value))


_FIGURES = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/clipped_ratio",
)
