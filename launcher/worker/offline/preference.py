"""TRL's trainers of preferences, with what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from trl import DPOTrainer, KTOTrainer

from launcher.errors import UsageError
from launcher.worker.checkpoint import Committed

_REFERENCE = "reference.safetensors"


class _Following:
    """A reference that follows the policy (TR-DPO, `sync_ref_model`) is part of the checkpoint.

    TRL's is not: a resumed training would start with the first reference again.
    """

    def __init__(self, *, args: Any, **options: Any) -> None:
        plugin = args.deepspeed_plugin
        if args.sync_ref_model and plugin is not None and plugin.zero_stage == 3:
            raise UsageError(
                "a reference that follows the policy (`sync_ref_model`) cannot be resumed under"
                " ZeRO 3",
                hint="set `resources.zero_stage: 2`",
            )
        super().__init__(args=args, **options)  # type: ignore[call-arg]

    def save_beside(self: Any, folder: Path) -> None:
        if self.args.sync_ref_model and self.accelerator.is_main_process:
            save_model(self.accelerator.unwrap_model(self.ref_model), str(folder / _REFERENCE))

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and self.args.sync_ref_model:
            reference = self.accelerator.unwrap_model(self.ref_model)
            load_model(reference, Path(checkpoint) / _REFERENCE)


class Dpo(_Following, Committed, DPOTrainer):
    """TRL's DPOTrainer, whose `sigmoid` loss heeds `label_smoothing` here.

    With a share ε of labels taken to be wrong, conservative DPO's loss (Mitchell 2023) of a pair
    with the logit x is −(1−ε)·log σ(x) − ε·log σ(−x). TRL ignores ε in `sigmoid`; its `robust` loss
    with a share s is (−(1−s)·log σ(x) + s·log σ(−x)) / (1−2s), which is the one above where
    s = −ε/(1−2ε).
    """

    def __init__(self, *, args: Any, **options: Any) -> None:
        super().__init__(args=args, **options)
        share, losses = args.label_smoothing, args.loss_type
        if "sigmoid" in losses and share:
            self.loss_types = ["robust" if loss == "sigmoid" else loss for loss in losses]
            self.label_smoothing = -share / (1 - 2 * share)


class Kto(_Following, Committed, KTOTrainer):
    """TRL's KTOTrainer."""
