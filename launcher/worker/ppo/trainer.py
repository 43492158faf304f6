"""`PPOTrainer`: PPO with a value model, as a subclass of TRL's `GRPOTrainer`.

Inherited: tokenizing and chat templates, generation (transformers, continuous batching, vLLM), the
reference model and adapters switched off in its place, the buffer that feeds several optimizer
steps from one rollout, DDP, DeepSpeed, autocast, logging of completions. Replaced: what a rollout
is scored into (`_generate_and_score_completions`), the loss (`_compute_loss`), and what a
checkpoint holds. The value function is a submodule of the policy (see `value.py`), so a spike under
ZeRO-2, ZeRO-3 and DDP needed no override for it; only saving must set it aside. An own trainer on
`transformers.Trainer` would have to write generation and reference handling again and was dropped.

Forward passes per rollout of N completions, beside generation itself: policy and values once (one
pass of the trunk gives log-probabilities and values; no gradient), reference once, reward model
once. Per optimizer step: one forward and backward of policy and values. The pass before the update
cannot be saved even with one epoch and one mini-batch, since GAE needs all values first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl import GRPOTrainer
from trl.models import prepare_deepspeed
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation
from trl.trainer.utils import (
    RepeatSampler,
    add_fused_lm_head,
    create_model_from_path,
    disable_dropout_in_model,
    pad,
    use_adapter,
)

from launcher.worker.checkpoint import Committed
from launcher.worker.online.sampler import EpochSampler
from launcher.worker.ppo import algorithm, policy, reward, rollout, sampling, value
from launcher.worker.ppo.config import PPOConfig
from launcher.worker.ppo.kl import KLController


class PPOTrainer(Committed, GRPOTrainer):
    """Trains `model` to please `reward_model` without straying far from the reference.

    `model`, `ref_model`: causal language models or paths. Without `ref_model` the reference is the
    policy as loaded: with adapters the base model (or a frozen copy of the adapter that came with
    it), else a second copy from the policy's path. `kl_coef` 0 has none.
    `reward_model`: a sequence-classification model with one label, or its path.
    `value_model`: None for a head on the policy's trunk; else a sequence-classification model with
    one label, or a path to start it from (a policy's folder starts with a fresh score head).
    `train_dataset`: a column "prompt", text or messages.

    Raises `ValueError` where policy and value model have different tokenizers, a model is not of
    the kind that its role needs, `stop_token` is no token, or there are fewer prompts than one
    rollout takes.
    """

    _tag_names = ("trl", "ppo")
    _name = "PPO"
    _paper = {  # noqa: RUF012
        "title": "Proximal Policy Optimization Algorithms",
        "id": "1707.06347",
        "citation": (
            "@article{schulman2017ppo,\n"
            "    title  = {{Proximal Policy Optimization Algorithms}},\n"
            "    author = {Schulman, John and Wolski, Filip and Dhariwal, Prafulla and "
            "Radford, Alec and Klimov, Oleg},\n"
            "    year   = 2017,\n"
            "    eprint = {arXiv:1707.06347},\n"
            "}"
        ),
    }

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_model: str | PreTrainedModel,
        args: PPOConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        ref_model: str | PreTrainedModel | None = None,
        value_model: str | PreTrainedModel | PeftModel | None = None,
        reward_processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
    ) -> None:
        if processing_class is None:
            source = model if isinstance(model, str) else model.config.name_or_path
            processing_class = AutoTokenizer.from_pretrained(
                source, padding_side="left", trust_remote_code=args.trust_remote_code
            )
        if len(train_dataset) < args.generation_batch_size:
            raise ValueError(
                f"The {len(train_dataset)} prompts do not fill one rollout of "
                f"{args.generation_batch_size}: bring more, or lower the batch or "
                "`num_mini_batches`."
            )
        init = _model_init(args)
        scorer = (
            reward.load_scorer(reward_model, **init)
            if isinstance(reward_model, str)
            else reward_model
        )
        scorer_tokenizer = reward_processing_class or reward.tokenizer_of(
            scorer, "reward model", trust_remote_code=args.trust_remote_code
        )
        reward.check_label(scorer)
        if isinstance(value_model, str):
            value_model = reward.load_value_model(value_model, **init)
        if value_model is not None:
            reward.check_vocabulary(value_model, processing_class, "value model")
        self._stop_token_id = _stop_token_id(args.stop_token, processing_class)
        if self._stop_token_id is not None and args.use_vllm:
            stop = {"stop_token_ids": [self._stop_token_id]}
            args.generation_kwargs = stop | (args.generation_kwargs or {})
        if ref_model is not None:
            args.beta = 0.0  # else the parent would load a reference of its own
        super().__init__(
            model,
            [scorer],
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=[scorer_tokenizer or processing_class],
            callbacks=callbacks,
            peft_config=peft_config,
            optimizers=optimizers,
            quantization_config=quantization_config,
        )
        self.on_phase: Callable[[str], None] = lambda _phase: None
        """Told of each phase of a step as it begins: `rollout`, `score`, `update`."""
        if self.is_fsdp_enabled:
            raise ValueError("PPO runs under DDP and DeepSpeed, not under FSDP: unset `fsdp`.")
        if self._stop_token_id is not None:
            self._stop_at(self._stop_token_id)
        adaptive = args.kl_controller == "adaptive"
        self.kl = KLController(
            args.kl_coef, args.kl_target if adaptive else None, horizon=args.kl_horizon
        )
        """The weight of the KL penalty as it is now."""
        self._attach_value_function(value_model)
        if ref_model is not None and args.kl_coef != 0.0:
            self.ref_model = self._prepare_reference(ref_model, init)
        if self.ref_model is not None:
            self._score_completions_only(self.accelerator.unwrap_model(self.ref_model))
        if self.use_vllm:
            self._keep_values_from_vllm()

    def _stop_at(self, token_id: int) -> None:
        """Let a token end completions as EOS does."""
        self.eos_token_ids: list[int] = sorted({*self.eos_token_ids, token_id})
        if not self.use_vllm:
            self.generation_config.eos_token_id = self.eos_token_ids
            self.generation_kwargs["eos_token_id"] = self.eos_token_ids

    # Models

    @property
    def value_function(self) -> Any:
        """The value head or value model, inside the policy."""
        return getattr(value.without_peft(self.model), value.ATTRIBUTE)

    def _attach_value_function(self, value_model: PreTrainedModel | PeftModel | None) -> None:
        model = value.without_peft(self.model)
        if value_model is None:
            # ZeRO-3 moves parameters in buffers of one dtype.
            zero3 = self.is_deepspeed_enabled and _zero_stage(self) == 3
            dtype = model.dtype if zero3 else torch.float32
            module = value.ValueHead(model.config.get_text_config().hidden_size, dtype)
        else:
            module = value.ValueModel(value_model)
            if self.args.disable_dropout:
                disable_dropout_in_model(module)
        setattr(model, value.ATTRIBUTE, module.to(self.accelerator.device))
        self._score_completions_only(model)

    def _score_completions_only(self, model: PreTrainedModel) -> None:
        policy.score_completions_only(
            model, self.temperature, entropy_gradient=self.args.entropy_coef != 0.0
        )

    def _prepare_reference(self, model: str | PreTrainedModel, init: dict[str, Any]) -> nn.Module:
        if isinstance(model, str):
            model = create_model_from_path(model, **{"dtype": self.model.dtype, **init})
        if self.args.disable_dropout:
            disable_dropout_in_model(model)
        add_fused_lm_head(model, temperature=self.temperature)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _keep_values_from_vllm(self) -> None:
        """vLLM serves the policy alone: leave the value function out of what is sent to it."""
        named_params = self.vllm_generation._iter_named_params

        def policy_params() -> Iterator[tuple[str, Tensor]]:
            for name, parameter in named_params():
                if not value.is_value_parameter(name):
                    yield name, parameter

        self.vllm_generation._iter_named_params = policy_params

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if not given and isinstance(optimizer, torch.optim.Optimizer):
            value.give_value_learning_rate(
                optimizer, self.value_function, self.args.value_learning_rate
            )
        return optimizer

    # Data

    def _get_train_sampler(self, dataset: Dataset | None = None) -> RepeatSampler:
        return EpochSampler(
            self.train_dataset if dataset is None else dataset,
            mini_repeat_count=1,
            epoch=lambda: int(self.state.epoch or 0),
            batch_size=self.args.generation_batch_size,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    # Rollout

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *inherited: Any, **also: Any
    ) -> tuple[list[list[int]], Any]:
        """Completions of `prompt_ids` by the short way where it serves, else as inherited."""
        args = self.args
        # Layers that are gathered one by one need as many passes of every process.
        apart = self.is_deepspeed_enabled and _zero_stage(self) == 3
        if (
            self.use_vllm
            or self.use_transformers_continuous_batching
            or (apart and not args.ds3_gather_for_generation)
            or self.pad_to_multiple_of is not None
            or not sampling.serves(value.without_peft(self.model), args)
        ):
            return super()._generate_single_turn(prompt_ids, *inherited, **also)
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as unwrapped:
            completion_ids = sampling.sample(
                unwrapped,
                prompt_ids,
                length=self.max_completion_length,
                temperature=self.temperature,
                end_ids=self.eos_token_ids,
                pad_id=self._tokenizer.pad_token_id,
                device=self.accelerator.device,
            )
        return completion_ids, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One completion for each prompt, with everything that the updates on it need.

        All of shape (B, T), padded to the right, but for `prompt_ids` and `prompt_mask`, which are
        (B, P) and padded to the left, and `num_items_in_batch`, the tokens of all processes.
        """
        mode = "train" if self.model.training else "eval"
        args = self.args
        device = self.accelerator.device
        prompts = [example["prompt"] for example in inputs]
        started = time.perf_counter()
        self.on_phase("rollout")
        prompt_lists, completion_lists, _, completions, *_ = self._generate(prompts)
        generated = time.perf_counter()
        self.on_phase("score")

        prompt_ids, prompt_mask = self._pad(prompt_lists, "left")
        completion_ids, mask = self._pad(completion_lists, "right")
        batch_size = (
            args.per_device_train_batch_size if mode == "train" else args.per_device_eval_batch_size
        )
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": mask,
            "num_items_in_batch": self.accelerator.reduce(mask.sum(), reduction="sum"),
        }
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(self.model, args.gradient_checkpointing_kwargs),
        ):
            old_logps, values = self._score_tokens(self.model, batch, batch_size, with_values=True)
            ref_logps = self._reference_logps(batch, batch_size)
        scorer_tokenizer = self.reward_processing_classes[0]
        whole = [ids[-1] in self.eos_token_ids for ids in completion_lists]
        scores = reward.score(
            self.reward_funcs[0],
            reward.scorer_input(
                prompts,
                completions,
                prompt_lists,
                completion_lists,
                scorer_tokenizer,
                self.chat_template_kwargs,
                written_with=self._tokenizer,
                ended=whole,
            ),
            scorer_tokenizer.pad_token_id,
            batch_size,
            device,
        )
        ended = torch.tensor(whole).to(device)
        clipped = (
            scores if args.reward_clip_range is None else scores.clamp(*args.reward_clip_range)
        )
        penalized = clipped - (args.missing_eos_penalty or 0.0) * (~ended).float()
        log_ratio = (old_logps - ref_logps) * mask if ref_logps is not None else mask * 0.0
        kl = algorithm.kl_estimate(log_ratio, args.kl_estimator)
        rewards = algorithm.token_rewards(penalized, kl, mask, self.kl.coef)
        if args.whiten_rewards:
            rewards = algorithm.whiten(rewards, mask, shift_mean=False, total=self._total)
        advantages, returns = algorithm.gae(rewards, values, mask, args.gamma, args.lam)
        of_completions = {
            "reward": scores,
            "eos_rate": ended,
            "objective/scores": penalized,
            "objective/kl": kl.sum(dim=1),
            "objective/entropy": -(old_logps * mask).sum(dim=1),
        }
        self._log_rollout(
            mode, of_completions, {"returns": returns, "values": values, "kl": kl}, mask
        )
        if self.log_completions:
            self._logs["prompt"].extend(gather_object(prompts))
            self._logs["completion"].extend(gather_object(completions))
            self._logs["rewards"]["reward"].extend(gather_object(scores.tolist()))
            self._logs["advantages"].extend(gather_object(advantages[:, 0].tolist()))
        if args.whiten_advantages:
            advantages = algorithm.whiten(advantages, mask, total=self._total)
        self._metrics[mode]["time/generation"].append(generated - started)
        self._metrics[mode]["time/scoring"].append(time.perf_counter() - generated)
        self.on_phase("update")
        return batch | {
            "old_per_token_logps": old_logps,
            "values": values,
            "advantages": advantages,
            "returns": returns,
        }

    def _pad(self, ids: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, (B, longest), on the device."""
        rows = [torch.tensor(row) for row in ids]
        width = {"padding_side": side, "pad_to_multiple_of": self.pad_to_multiple_of}
        padded = pad(rows, padding_value=self._tokenizer.pad_token_id, **width)
        mask = pad([torch.ones_like(row) for row in rows], padding_value=0, **width)
        return padded.to(self.accelerator.device), mask.to(self.accelerator.device)

    def _trimmed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`batch` without columns of padding alone, unless a width was asked for."""
        return batch if self.pad_to_multiple_of is not None else rollout.trimmed(batch)

    def _forward(self, model: nn.Module, batch: dict[str, Tensor], **wanted: Any) -> Any:
        """The model's `PolicyOutput` for the completions of `batch`."""
        input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention_mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        labels = input_ids.masked_fill(attention_mask == 0, -100)
        with self.accelerator.autocast():
            return model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                labels=labels,
                fused_lm_head=True,
                completion_length=batch["completion_ids"].size(1),
                **wanted,
            )

    def _score_tokens(
        self, model: nn.Module, batch: dict[str, Tensor], batch_size: int, *, with_values: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values, both (B, T), in chunks of `batch_size` completions.

        Completions of like length share a chunk, which ends with its longest.
        """
        rows = {name: tensor for name, tensor in batch.items() if tensor.ndim}
        mask = batch["completion_mask"]
        order = mask.sum(dim=1).argsort(descending=True, stable=True)
        logps = torch.zeros(mask.shape, device=mask.device)
        values = torch.zeros_like(logps)
        for chosen in order.split(batch_size):
            chunk = {name: tensor[chosen] for name, tensor in rows.items()}
            output = self._forward(model, self._trimmed(chunk), with_values=with_values)
            width = output.log_probs.size(1)
            logps[chosen, :width] = output.log_probs
            if with_values:
                values[chosen, :width] = output.token_values
        return logps, values * mask

    def _reference_logps(self, batch: dict[str, Tensor], batch_size: int) -> Tensor | None:
        """Log-probabilities of the reference, (B, T); None without a KL penalty."""
        if self.args.kl_coef == 0.0:
            return None
        if self.ref_model is not None:
            return self._score_tokens(self.ref_model, batch, batch_size, with_values=False)[0]
        adapted = self.accelerator.unwrap_model(self.model)
        with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
            return self._score_tokens(self.model, batch, batch_size, with_values=False)[0]

    def _total(self, sums: Tensor) -> Tensor:
        return self.accelerator.reduce(sums, reduction="sum")

    def _log_rollout(
        self,
        mode: str,
        of_completions: dict[str, Tensor],
        of_tokens: dict[str, Tensor],
        mask: Tensor,
    ) -> None:
        """Log the means over all processes, and what follows from them; move the KL weight.

        `of_completions`: (B,), reward, score and KL among them. `of_tokens`: (B, T), returns,
        values and KL. Without a penalty no KL is known, and none is logged.
        """
        error = of_tokens["returns"] - of_tokens["values"]
        squares = {"error2": error.square(), "returns2": of_tokens["returns"].square()}
        tokens = self._means(of_tokens | squares | {"error": error}, mask)
        score2 = of_completions["reward"].square()
        metrics = self._means(of_completions | {"reward2": score2})
        variance = metrics.pop("reward2") - metrics["reward"] ** 2
        metrics["reward_std"] = max(variance, 0.0) ** 0.5
        returns_variance = tokens["returns2"] - tokens["returns"] ** 2
        error_variance = tokens["error2"] - tokens["error"] ** 2
        metrics["val/explained_variance"] = 1 - error_variance / max(returns_variance, 1e-8)
        metrics["val/mean"] = tokens["values"]
        kl = metrics["objective/kl"]
        penalty = self.kl.coef * kl
        metrics["objective/non_score_reward"] = -penalty
        metrics["objective/rlhf_reward"] = metrics["objective/scores"] - penalty
        if self.args.kl_coef == 0.0:
            del metrics["objective/kl"]
        else:
            metrics["kl"] = tokens["kl"]
            metrics["objective/kl_coef"] = self.kl.coef
            if mode == "train":
                self.kl.update(kl, self.args.generation_batch_size)
        for name, number in metrics.items():
            self._metrics[mode][name].append(number)

    def _means(self, tensors: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, float]:
        """The mean of each tensor over all processes, over the tokens of `mask` if there is one."""
        weight = torch.ones_like(next(iter(tensors.values()))) if mask is None else mask
        sums = [weight.sum().float(), *((x * weight).sum().float() for x in tensors.values())]
        count, *totals = self._total(torch.stack(sums)).tolist()
        return {name: total / max(count, 1.0) for name, total in zip(tensors, totals, strict=True)}

    # Update

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As inherited, but each PPO epoch over a rollout splits it into other mini-batches."""
        steps, args = self._step, self.args
        if (
            self.model.training
            and self._buffered_inputs is not None
            and args.num_mini_batches > 1
            and steps % args.steps_per_generation == 0
            and steps % (args.steps_per_generation * self.num_iterations) != 0
        ):
            self._buffered_inputs: Any = rollout.shuffled(self._buffered_inputs)
        return super()._prepare_inputs(generation_batch)

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Policy loss + vf_coef × value loss − entropy_coef × entropy, each a mean over tokens.

        The mean is over all tokens of the rollout divided by its mini-batches, whatever the
        micro-batch and the number of processes, so that these do not change the result.
        """
        mode = "train" if self.model.training else "eval"
        inputs = self._trimmed(inputs)
        args, mask = self.args, inputs["completion_mask"]
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        output = self._forward(model, inputs, with_values=True, with_entropy=True, **router)
        policy_loss, policy_clipped = algorithm.clipped_policy_loss(
            output.log_probs, inputs["old_per_token_logps"], inputs["advantages"], args.cliprange
        )
        value_loss, value_clipped = algorithm.clipped_value_loss(
            output.token_values, inputs["values"], inputs["returns"], args.cliprange_value
        )
        mini_batches = args.num_mini_batches if mode == "train" else 1
        # Processes average their gradients, hence their number.
        weight = self.accelerator.num_processes * mini_batches / inputs["num_items_in_batch"]
        loss = ((policy_loss + args.vf_coef * value_loss) * mask).sum() * weight
        if args.entropy_coef != 0.0:
            loss = loss - args.entropy_coef * (output.entropy * mask).sum() * weight
        if self.aux_loss_enabled:
            steps = self.current_gradient_accumulation_steps if mode == "train" else 1
            loss = loss + self.router_aux_loss_coef * output.aux_loss / steps
        with torch.no_grad():
            log_ratio = output.log_probs - inputs["old_per_token_logps"]
            per_token = {
                "loss/policy_avg": policy_loss,
                "loss/value_avg": value_loss,
                "policy/clipfrac_avg": policy_clipped,
                "val/clipfrac_avg": value_clipped,
                "entropy": output.entropy,
                "policy/approxkl_avg": 0.5 * log_ratio.square(),
                "val/ratio": log_ratio.exp(),
            }
            for name, mean in self._means(per_token, mask).items():
                self._metrics[mode][name].append(mean)
        return loss

    # Checkpoints

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """A plain causal language model (or its adapter), and the value function beside it."""
        folder = Path(output_dir or self.args.output_dir)
        function = self.value_function
        if state_dict:
            state_dict, value_state = value.split_state(state_dict)
        else:
            value_state = function.state_dict()
        with value.detached(value.without_peft(self.model)):
            super()._save(str(folder), state_dict)
        if self.args.should_save and value_state:
            value.save_value_function(function, value_state, folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        with value.detached(value.without_peft(self.model)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        value.load_value_function(self.value_function, Path(resume_from_checkpoint))

    def save_beside(self, folder: Path) -> None:
        if self.args.save_only_model:
            return
        if self.args.should_save:
            self.kl.save(folder)
        steps_of_rollout = self.args.steps_per_generation * self.num_iterations
        if self._buffered_inputs and self._step % steps_of_rollout:
            rollout.save_rollout(
                folder,
                self._buffered_inputs,
                self.accelerator.process_index,
                self.accelerator.num_processes,
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.kl.load(Path(checkpoint))
        # Counted in micro-batches of now, which need not be those of the checkpoint.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self._buffered_inputs = rollout.load_rollout(
            Path(checkpoint),
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.args.steps_per_generation,
            self.accelerator.device,
        )


def _model_init(args: PPOConfig) -> dict[str, Any]:
    """How models other than the policy are loaded: as the policy, and never with a device map."""
    init = dict(args.model_init_kwargs or {})
    init.setdefault("trust_remote_code", args.trust_remote_code)
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        init["device_map"] = None
    return init


def _stop_token_id(token: str | None, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The number of a token that ends completions too; None for none beside EOS.

    Raises `ValueError` where the text is not one token.
    """
    if token is None or token == "eos":
        return None
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"`stop_token` {token!r} is {len(ids)} tokens to the policy, it must be one."
        )
    return int(ids[0])


def _zero_stage(trainer: PPOTrainer) -> int:
    plugin = trainer.accelerator.state.deepspeed_plugin
    return int(plugin.zero_stage)
