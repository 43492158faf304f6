"""TRL's RewardTrainer with the accuracy of all held-out pairs."""

from __future__ import annotations

from typing import Any

import torch
from trl import RewardTrainer

from launcher.worker.checkpoint import Committed


class Reward(Committed, RewardTrainer):
    """`eval_accuracy` counts pairs.

    TRL averages the accuracies of batches, where a last batch of one pair weighs as much as a whole
    one; and of several processes it forgets all but the first in that batch.
    """

    def __init__(self, **options: Any) -> None:
        self._right: list[torch.Tensor] = []
        """Of an evaluation: whether each pair was told right, batch by batch."""
        super().__init__(**options)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        self._right.append(self.accelerator.gather_for_metrics(chosen > rejected).cpu())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._right and not self.model.training:
            accuracy = torch.cat(self._right).float().mean().item()
            self._metrics["eval"]["accuracy"] = [accuracy]
            self._right.clear()
        super().log(logs, start_time)
