"""The table of methods: adding one is a row here and a small file in `launcher/worker/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    online: bool = False
    """Whether training generates; `global_batch` then counts completions (with `sequences_per_row`
    2: prompts with two completions each)."""
    judged: bool = False
    """Whether it takes `rewards`, of which (`reward_model` counted) it needs at least one."""

    @property
    def roles(self) -> tuple[str, ...]:
        return (*self.required_roles, *self.optional_roles)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "sft",
            config="trl:SFTConfig",
            main_role="model",
            required_roles=("model",),
            columns=(("messages",), ("prompt", "completion"), ("text",)),
        ),
        Method(
            "reward",
            config="trl:RewardConfig",
            main_role="model",
            required_roles=("model",),
            columns=(("chosen", "rejected"), ("prompt", "chosen", "rejected")),
            result="reward_model",
            sequences_per_row=2,
        ),
        Method(
            "dpo",
            config="trl:DPOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference",),
            columns=(("chosen", "rejected"), ("prompt", "chosen", "rejected")),
            sequences_per_row=2,
        ),
        Method(
            "kto",
            config="trl:KTOConfig",
            main_role="policy",
            required_roles=("policy",),
            optional_roles=("reference",),
            columns=(("prompt", "completion", "label"), ("chosen", "rejected")),
        ),
        Method(
            "ppo",
            config="launcher.worker.ppo.config:PPOConfig",
            main_role="policy",
            required_roles=("policy", "reward_model"),
            optional_roles=("reference", "value_model"),
            columns=(("prompt",),),
            online=True,
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
        ),
        Method(
            "evaluate",
            config="launcher.worker.evaluate.config:EvaluateConfig",
            main_role="reference",
            optional_roles=("reference", "reward_model"),
            columns=(("prompt",),),
            result="report",
        ),
        Method("command", config=None, main_role="", result=None),
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
