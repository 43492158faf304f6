"""The settings of PPO: those of TRL's `GRPOConfig`, with PPO's own in place of the group's."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from trl import GRPOConfig

REFUSED: dict[str, str] = {
    "beta": "use `kl_coef`",
    "epsilon": "use `cliprange`",
    "epsilon_high": "use `cliprange`, PPO clips the same on both sides",
    "delta": "use `cliprange`",
    "num_iterations": "use `num_ppo_epochs`",
    "steps_per_generation": "use `num_mini_batches`",
    "generation_batch_size": "use `num_mini_batches`",
    "num_generations": "PPO samples one completion a prompt",
    "num_generations_eval": "PPO samples one completion a prompt",
    "scale_rewards": "use `whiten_rewards`",
    "reward_weights": "PPO takes one reward model",
    "multi_objective_aggregation": "PPO takes one reward model",
    "loss_type": "PPO has one loss",
    "importance_sampling_level": "PPO's ratio is per token",
    "sapo_temperature_neg": "PPO has one loss",
    "sapo_temperature_pos": "PPO has one loss",
    "vespo_k_pos": "PPO has one loss",
    "vespo_lambda_pos": "PPO has one loss",
    "vespo_k_neg": "PPO has one loss",
    "vespo_lambda_neg": "PPO has one loss",
    "mask_truncated_completions": "use `missing_eos_penalty`",
    "top_entropy_quantile": "PPO learns from every token",
    "use_adaptive_entropy": "use `entropy_coef`",
    "entropy_coef_min": "use `entropy_coef`",
    "entropy_coef_max": "use `entropy_coef`",
    "entropy_coef_delta": "use `entropy_coef`",
    "entropy_target": "use `entropy_coef`",
    "max_tool_calling_iterations": "PPO has no tools",
    "off_policy_mask_threshold": "use `cliprange`",
    "use_bias_correction_kl": "PPO's KL penalty is part of the reward",
    "vllm_importance_sampling_correction": "PPO recomputes the log-probabilities it starts from",
    "vllm_importance_sampling_mode": "PPO recomputes the log-probabilities it starts from",
    "vllm_importance_sampling_clip_max": "PPO recomputes the log-probabilities it starts from",
    "vllm_importance_sampling_clip_min": "PPO recomputes the log-probabilities it starts from",
    "vllm_importance_sampling_cap": "PPO recomputes the log-probabilities it starts from",
    "sync_ref_model": "PPO's KL penalty is against a reference that stays",
    "ref_model_mixup_alpha": "PPO's KL penalty is against a reference that stays",
    "ref_model_sync_steps": "PPO's KL penalty is against a reference that stays",
    "use_transformers_paged": "use `use_transformers_continuous_batching`",
    "auto_find_batch_size": "the launcher sets the micro-batch",
}
"""Keys that `GRPOConfig` has and PPO does not take, and what to do instead."""


@dataclass
class PPOConfig(GRPOConfig):
    """Settings of `PPOTrainer`. What is not listed here is inherited with TRL's name and meaning.

    One optimizer step takes B = `per_device_train_batch_size` × processes ×
    `gradient_accumulation_steps` completions. One rollout is B × `num_mini_batches` prompts with
    one completion each, and feeds `num_mini_batches` × `num_ppo_epochs` optimizer steps. So a pass
    over N prompts makes ⌊N / (B × num_mini_batches)⌋ × num_mini_batches × num_ppo_epochs steps.

    Raises `ValueError` for an inherited key that PPO has under another name or not at all
    (`REFUSED`), and for values outside their range.
    """

    kl_coef: float = field(
        default=0.05, metadata={"help": "Weight of the per-token KL penalty in the reward."}
    )
    """Weight of the per-token KL penalty against the reference in the reward. 0 loads none."""

    kl_estimator: Literal["k1", "k2", "k3"] = field(
        default="k1", metadata={"help": "Estimator of the KL divergence from the reference."}
    )
    """How a token's KL divergence is estimated (see `algorithm.kl_estimate`).

    "k1" and "k3" are unbiased, "k3" varies less; with "k1" the sum over a completion is the log
    of its probability over that under the reference.
    """

    kl_controller: Literal["fixed", "adaptive"] = field(
        default="fixed", metadata={"help": "Whether `kl_coef` stays or follows `kl_target`."}
    )
    """"adaptive" starts from `kl_coef` and moves it after each rollout, so that the KL divergence
    of a completion comes to `kl_target` (Ziegler et al. 2019, section 2.2)."""

    kl_target: float = field(
        default=6.0, metadata={"help": "KL of a completion that the adaptive controller keeps."}
    )
    """The KL divergence from the reference, in nats a completion, that "adaptive" aims at."""

    kl_horizon: int = field(
        default=10_000, metadata={"help": "Completions over which the controller corrects."}
    )
    """How slowly "adaptive" acts: over so many completions it changes `kl_coef` by a factor of at
    most about e^0.2."""

    cliprange: float = field(
        default=0.2, metadata={"help": "Clipping range of the policy ratio (ε of the paper)."}
    )
    """Clipping range ε of the probability ratio, 1 ± ε."""

    cliprange_value: float = field(
        default=0.2, metadata={"help": "Clipping range of the value around its rollout value."}
    )
    """How far a value may move from its value at rollout before its loss is clipped."""

    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    """Weight of the value loss. Matters where policy and value share a trunk."""

    gamma: float = field(default=1.0, metadata={"help": "Discount factor of rewards."})
    """Discount γ of later rewards, per token."""

    lam: float = field(default=0.95, metadata={"help": "λ of generalised advantage estimation."})
    """λ of generalised advantage estimation: 0 trusts the value model, 1 the sampled return."""

    num_ppo_epochs: int = field(
        default=4, metadata={"help": "Passes over each rollout (μ of GRPO's `num_iterations`)."}
    )
    """Passes over each rollout. Sampling is the dear part, so completions are used 4 times."""

    num_mini_batches: int = field(
        default=1, metadata={"help": "Optimizer steps a rollout is split into, per PPO epoch."}
    )
    """Optimizer steps that one pass over a rollout makes; the rollout grows with it.

    Each pass splits the rollout anew at random.
    """

    whiten_advantages: bool = field(
        default=True, metadata={"help": "Scale advantages to mean 0 and variance 1 per rollout."}
    )
    """Scale the advantages of a rollout to mean 0 and variance 1 over all processes."""

    whiten_rewards: bool = field(
        default=False, metadata={"help": "Scale token rewards to variance 1 per rollout."}
    )
    """Scale the token rewards of a rollout to variance 1, keeping their mean."""

    reward_clip_range: tuple[float, float] | None = field(
        default=None, metadata={"help": "Range (min, max) that scores are clipped to."}
    )
    """The range that a score is clipped to, before `missing_eos_penalty` is taken off."""

    stop_token: str | None = field(
        default=None, metadata={"help": "A token that ends a completion too, beside EOS."}
    )
    """A token that ends a completion as EOS does; None and "eos" add none.

    The model's own end tokens end completions in any case.
    """

    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "Taken off the score of a completion without EOS."}
    )
    """Taken off the score of a completion that does not end by itself (a positive number)."""

    value_learning_rate: float = field(
        default=1e-5, metadata={"help": "Learning rate of the value head or value model."}
    )
    """Learning rate of the value head or value model, under the same schedule.

    A fresh head learns nothing in useful time at a policy's 1e-6.
    """

    pad_to_multiple_of: int | str | None = field(
        default="auto", metadata={"help": "Pad prompts and completions to a multiple of this."}
    )
    """Pad prompts and completions to a multiple of this; "auto" and None pad to the longest."""

    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Switch dropout off, so that ratios compare like with like."},
    )
    """Switch dropout off in every model: with it the ratio of a policy to itself is not 1."""

    num_generations: int | None = field(
        default=1, metadata={"help": "Fixed: PPO samples one completion a prompt."}
    )
    """Fixed to 1: a value model takes the place of the group."""

    vllm_importance_sampling_correction: bool = field(
        default=False, metadata={"help": "Fixed: log-probabilities are recomputed."}
    )
    """Fixed to False: the policy's own log-probabilities at rollout are what PPO compares with."""

    def __post_init__(self) -> None:
        # GRPOConfig's own checks ask for groups of at least two, so they are passed over; what else
        # it derives is derived below.
        super(GRPOConfig, self).__post_init__()
        steps_per_generation = self.gradient_accumulation_steps * self.num_mini_batches
        derived: dict[str, Any] = {
            "beta": self.kl_coef,
            "epsilon": self.cliprange,
            "num_iterations": self.num_ppo_epochs,
            "scale_rewards": "none",
            "steps_per_generation": steps_per_generation,
            "generation_batch_size": (
                self.per_device_train_batch_size * self.world_size * steps_per_generation
            ),
        }
        _refuse(self, derived)
        _check_ranges(self)
        for name, value in derived.items():
            setattr(self, name, value)
        multiple: int | str | None = self.pad_to_multiple_of
        if isinstance(multiple, str):
            none = multiple.lower() in ("auto", "none", "null")
            self.pad_to_multiple_of = None if none else int(multiple)


def _refuse(config: PPOConfig, derived: dict[str, Any]) -> None:
    """Raise for each refused key that has neither its default nor the value PPO derives for it."""
    problems = []
    for item in fields(config):
        if item.name not in REFUSED:
            continue
        default = item.default if item.default is not MISSING else None
        if getattr(config, item.name) not in (default, derived.get(item.name, default)):
            problems.append(f"`{item.name}` is not a key of PPO: {REFUSED[item.name]}")
    if problems:
        raise ValueError("; ".join(problems) + ".")


def _check_ranges(config: PPOConfig) -> None:
    problems = []
    for name, low, high in (
        ("kl_coef", 0, None),
        ("kl_horizon", 1, None),
        ("cliprange", 0, None),
        ("cliprange_value", 0, None),
        ("vf_coef", 0, None),
        ("gamma", 0, 1),
        ("lam", 0, 1),
        ("num_ppo_epochs", 1, None),
        ("num_mini_batches", 1, None),
        ("missing_eos_penalty", 0, None),
        ("value_learning_rate", 0, None),
    ):
        value = getattr(config, name)
        if value is not None and (value < low or (high is not None and value > high)):
            bound = f"at least {low}" if high is None else f"between {low} and {high}"
            problems.append(f"`{name}` is {value}, it must be {bound}")
    for name, choices in (
        ("kl_estimator", ("k1", "k2", "k3")),
        ("kl_controller", ("fixed", "adaptive")),
    ):
        if getattr(config, name) not in choices:
            listed = ", ".join(choices)
            problems.append(f"`{name}` is {getattr(config, name)}, it must be one of {listed}")
    if config.kl_target <= 0:
        problems.append(f"`kl_target` is {config.kl_target}, it must be above 0")
    if config.kl_controller == "adaptive" and config.kl_coef == 0:
        problems.append("`kl_controller` is adaptive, so `kl_coef` must start above 0")
    clip = config.reward_clip_range
    if clip is not None and (len(clip) != 2 or clip[0] >= clip[1]):
        problems.append(
            f"`reward_clip_range` is {list(clip)}, it must be a lower and a higher number"
        )
    if problems:
        raise ValueError("; ".join(problems) + ".")
