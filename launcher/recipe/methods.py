"""The table of methods: adding one is a row here and a small file in `launcher/worker/`.

Defaults are those of the config classes of TRL 1.16 and of the launcher's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Method:
    """What a method takes and gives."""

    name: str
    config: str | None
    """`module:Class` of the config whose fields `train:` takes, key for key; None: it has none."""
    main_role: str
    """The role that the recipe's top-level `model` fills where the stage does not; empty where the
    method has no roles."""
    required_roles: tuple[str, ...] = ()
    optional_roles: tuple[str, ...] = ()
    columns: tuple[tuple[str, ...], ...] = ()
    """The sets of data set columns, any one of which will do."""
    result: Literal["policy", "reward_model", "report"] | None = "policy"
    """None: the stage says what it gives (`Command.gives`)."""
    sequences_per_row: int = 1
    """Sequences that one data row brings to the GPU (2: chosen and rejected)."""
    unpairs: bool = False
    """Whether a pair of its data becomes two rows before it trains."""
    online: bool = False
    """Whether training generates; `global_batch` then counts completions (with `sequences_per_row`
    2: prompts with two completions each)."""
    judged: bool = False
    """Whether it takes `rewards`, of which (`reward_model` counted) it needs at least one."""
    trains: bool = True
    output: Literal["loss", "log-probabilities", "score"] = "log-probabilities"
    """What the main model's head gives in a training step; `loss`: no logits are needed whole."""
    reference: Literal["never", "always", "not precomputed", "weighed"] = "never"
    """When it needs the log-probabilities of the policy as it began: unless they were computed
    before (`precompute_ref_log_probs`), or where the distance has a weight."""
    distance: tuple[str, float] | None = None
    """The key of that weight, and its default."""
    group: int = 1
    """Completions of each prompt in a rollout: the default of `num_generations`."""
    completion: tuple[str, int] = ("max_completion_length", 512)
    """The key that bounds a completion's tokens, and its default, where it generates."""
    balances_experts: bool = False
    """Whether its trainer weighs the load of a mixture's experts in the loss by itself."""
    vllm_share: float = 0.3
    """Of a GPU's memory, what vLLM takes beside the trainer by default."""
    gates: tuple[str, ...] = ()
    """Figures that it is judged by, as they are logged."""

    @property
    def generates(self) -> bool:
        """Whether its data are prompts, which it answers."""
        return self.online or (not self.trains and self.config is not None)

    def needs_reference(self, train: Mapping[str, Any]) -> bool:
        """Whether a stage with this `train:` asks what the policy was at its start, each step."""
        if self.reference == "weighed":
            assert self.distance is not None
            key, default = self.distance
            return bool(train.get(key, default) != 0)
        if self.reference == "not precomputed":
            return not train.get("precompute_ref_log_probs")
        return self.reference == "always"

    @property
    def roles(self) -> tuple[str, ...]:
        return (*self.required_roles, *self.optional_roles)


_MARGINS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
_GROUPS = ("reward", "reward_std", "kl", "frac_reward_zero_std")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "sft",
            config="trl:SFTConfig",
            main_role="model",
            required_roles=("model",),
            columns=(("messages",), ("conversations",), ("prompt", "completion"), ("text",)),
            output="loss",
            balances_experts=True,
            gates=("mean_token_accuracy",),
        ),
        Method(
            "reward",
            config="trl:RewardConfig",
            main_role="model",
            required_roles=("model",),
            columns=(("chosen", "rejected"), ("prompt", "chosen", "rejected")),
            result="reward_model",
            sequences_per_row=2,
            output="score",
            gates=("accuracy", "margin", "mean_reward"),
        ),
        Method(
            "dpo",
            config="trl:DPOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference",),
            columns=(("chosen", "rejected"), ("prompt", "chosen", "rejected")),
            sequences_per_row=2,
            reference="not precomputed",
            balances_experts=True,
            gates=_MARGINS,
        ),
        Method(
            "kto",
            config="trl:KTOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference",),
            columns=(("prompt", "completion", "label"), ("chosen", "rejected")),
            unpairs=True,
            reference="not precomputed",
            balances_experts=True,
            gates=(*_MARGINS[1:], "kl"),
        ),
        Method(
            "ppo",
            config="launcher.worker.ppo.config:PPOConfig",
            main_role="policy",
            required_roles=("policy", "reward_model"),
            optional_roles=("reference", "value_model"),
            columns=(("prompt",),),
            online=True,
            reference="weighed",
            distance=("kl_coef", 0.05),
            gates=("reward", "reward_std", "kl", "objective/kl", "objective/scores", "eos_rate"),
        ),
        Method(
            "grpo",
            config="trl:GRPOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference", "reward_model"),
            columns=(("prompt",),),
            online=True,
            judged=True,
            reference="weighed",
            distance=("beta", 0.0),
            group=8,
            balances_experts=True,
            gates=_GROUPS,
        ),
        Method(
            "rloo",
            config="trl:RLOOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference", "reward_model"),
            columns=(("prompt",),),
            online=True,
            judged=True,
            reference="weighed",
            distance=("beta", 0.05),
            group=2,
            balances_experts=True,
            gates=_GROUPS,
        ),
        Method(
            "online_dpo",
            config="trl.experimental.online_dpo:OnlineDPOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference", "reward_model"),
            columns=(("prompt",),),
            sequences_per_row=2,
            online=True,
            judged=True,
            reference="always",
            completion=("max_new_tokens", 64),
            vllm_share=0.55,
            gates=("objective/kl", "objective/scores", "rewards/accuracies", "rewards/margins"),
        ),
        Method(
            "evaluate",
            config="launcher.worker.evaluate.config:EvaluateConfig",
            main_role="reference",
            optional_roles=("reference", "reward_model"),
            columns=(("prompt",),),
            result="report",
            trains=False,
        ),
        Method("command", config=None, main_role="", result=None, trains=False),
    )
}

_PROCESS = (
    "the installed TRL has no trainer for process rewards, a label for each step of an answer"
)
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("prm", "process_reward", "process_reward_model", "stepwise"), _PROCESS),
    **dict.fromkeys(("nash_md", "xpo", "bco"), "the installed TRL has it no more"),
    **dict.fromkeys(("cpo", "orpo", "simpo"), "the installed TRL has it as an experiment only"),
}
"""Methods that one may look for → why there is none of that name here."""
