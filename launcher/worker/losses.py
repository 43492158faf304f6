"""The losses of a training as they come, and the first that is no number.

The trainers cannot be asked: what they log leaves such losses out of the mean.
"""

from __future__ import annotations

from typing import Any

from launcher.worker.outcome import Ends


class Losses:
    """Of one rank."""

    def __init__(self) -> None:
        self._spoilt: Any = None
        self._last: tuple[float, int] | None = None

    def watch(self, trainer: Any) -> None:
        """Look at the loss of every micro-batch, without waiting for the device."""
        inner = trainer.training_step

        def training_step(*words: Any, **options: Any) -> Any:
            import torch

            loss = inner(*words, **options)
            if isinstance(loss, torch.Tensor):
                spoilt = ~torch.isfinite(loss.detach()).all()
                self._spoilt = spoilt if self._spoilt is None else self._spoilt | spoilt
            return loss

        trainer.training_step = training_step

    def logged(self, loss: float, step: int) -> None:
        """The mean loss up to `step`, where all of it was finite."""
        self._last = (loss, step)

    def spoilt(self) -> bool:
        """Whether a loss since the last call was not finite."""
        spoilt, self._spoilt = self._spoilt, None
        return bool(spoilt) if spoilt is not None else False

    def failure(self, step: int) -> Ends:
        """What to say of the step that has such a loss."""
        before = (
            f"the last finite one was {self._last[0]:.4g}, at step {self._last[1]}"
            if self._last is not None
            else "no step before it logged one"
        )
        return Ends(
            "nan",
            f"the loss of step {step} is not a finite number; {before}",
            hint="try a lower `learning_rate`, or `dtype: float32`, and look at that step's rows",
        )
