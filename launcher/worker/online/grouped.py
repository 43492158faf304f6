"""GRPO and RLOO: what is mixed in before TRL's trainer.

TRL's trainers generate a rollout for several optimizer steps and keep it in memory alone, so a run
that is stopped between two of them would go on with new completions of the same prompts, and count
its steps from nought. Here the rollout is part of the checkpoint. The reference is given, in the
precision of what only reads; TRL would load a second copy in that of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from trl import GRPOTrainer, RLOOTrainer
from trl.models import prepare_deepspeed
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from launcher.errors import UsageError
from launcher.worker.checkpoint import Committed
from launcher.worker.online.sampler import EpochSampler
from launcher.worker.ppo import rollout
from launcher.worker.rewards.judge import Judge

_REFERENCE = "reference.safetensors"


class _Grouped:
    """See the module. `judges` become `reward_funcs`; `ref_model` None leaves TRL its own way
    (no KL penalty, or an adapter's base)."""

    def __init__(
        self,
        *,
        args: Any,
        judges: Sequence[Judge],
        train_dataset: Any,
        ref_model: Any = None,
        **options: Any,
    ) -> None:
        self.on_phase: Callable[[str], None] = lambda _phase: None
        """Told of each phase of a step as it begins: `rollout`, `score`, `update`."""
        needed = args.generation_batch_size // args.num_generations
        if len(train_dataset) < needed:
            raise UsageError(
                f"the {len(train_dataset)} prompts do not fill one rollout, which takes {needed}",
                hint="bring more, or lower `global_batch` (completions of a step)",
            )
        beta, sync = args.beta, args.sync_ref_model
        if ref_model is not None:
            args.beta, args.sync_ref_model = 0.0, False
        super().__init__(  # type: ignore[call-arg]
            args=args, reward_funcs=list(judges), train_dataset=train_dataset, **options
        )
        if ref_model is not None:
            args.beta = self.beta = beta
            args.sync_ref_model = sync
            self.ref_model = self._prepared(ref_model)
            if sync:
                self._sync()
        for judge in judges:
            judge.attach(self)

    def _prepared(self: Any, model: Any) -> Any:
        if self.args.disable_dropout:
            disable_dropout_in_model(model)
        add_fused_lm_head(model, temperature=self.temperature)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _sync(self: Any) -> None:
        plugin = self.accelerator.state.deepspeed_plugin
        if plugin is not None and plugin.zero_stage == 3:
            raise UsageError(
                "a reference that follows the policy (`sync_ref_model`) cannot be resumed under"
                " ZeRO 3",
                hint="set `resources.zero_stage: 2`",
            )
        self.add_callback(
            SyncRefModelCallback(ref_model=self.ref_model, accelerator=self.accelerator)
        )

    # Phases

    def _generate(self, prompts: list[Any]) -> Any:
        self.on_phase("rollout")
        generated = super()._generate(prompts)  # type: ignore[misc]
        self.on_phase("score")
        return generated

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        scored = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.on_phase("update")
        return scored

    # Data

    def _get_train_sampler(self: Any, dataset: Any = None) -> Any:
        return EpochSampler(
            self.train_dataset if dataset is None else dataset,
            epoch=lambda: int(self.state.epoch or 0),
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    # Checkpoints

    def save_beside(self: Any, folder: Path) -> None:
        if self.args.sync_ref_model and self.accelerator.is_main_process:
            save_model(self.accelerator.unwrap_model(self.ref_model), str(folder / _REFERENCE))
        steps_of_rollout = self.args.steps_per_generation * self.num_iterations
        if self._buffered_inputs and self._step % steps_of_rollout:
            rollout.save_rollout(
                folder,
                self._buffered_inputs,
                self.accelerator.process_index,
                self.accelerator.num_processes,
            )

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is None:
            return
        if self.args.sync_ref_model:
            reference = self.accelerator.unwrap_model(self.ref_model)
            load_model(reference, Path(checkpoint) / _REFERENCE)
        # Counted in micro-batches of now, which need not be those of the checkpoint.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self._buffered_inputs = rollout.load_rollout(
            Path(checkpoint),
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.args.steps_per_generation,
            self.accelerator.device,
        )


class Grpo(_Grouped, Committed, GRPOTrainer):
    """TRL's GRPOTrainer."""


class Rloo(_Grouped, Committed, RLOOTrainer):
    """TRL's RLOOTrainer."""
