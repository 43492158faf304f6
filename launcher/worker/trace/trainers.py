"""The method's own trainer for a stage, on models without weights and rows of the full length."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from launcher.memory.lengths import Lengths, lengths
from launcher.models.read import read_shape
from launcher.recipe.methods import METHODS
from launcher.worker import arguments, models
from launcher.worker.trace.environment import replaced
from launcher.worker.trace.models import WORD, Builder, tokenizer
from launcher.worker.trace.request import Request

_TOKEN = 2


_NOT_OF_A_STEP: dict[str, Any] = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "chat_template_path": None,
    "assistant_only_loss": False,
    "completion_only_loss": None,
}
"""Keys of a recipe that need data or files which a trace has not, and a step does not feel."""


def trainer_of(request: Request, folder: str) -> Any:
    """The trainer, its models on the `meta` device. Raises KeyError for a method without one."""
    return TRAINERS[request.stage.method](request, config_of(request, folder))


def config_of(request: Request, folder: str) -> Any:
    """The method's config as the worker makes it, for a process on its own."""
    stage, settings, stack = request.stage, request.settings, request.stack
    values = arguments.of_stage(
        stage,
        micro_batch=settings.micro_batch,
        accumulation=settings.accumulation,
        checkpointing=settings.gradient_checkpointing,
    )
    # A CPU has no float16 training; tensors of bfloat16 are as large.
    values |= {"output_dir": folder, "use_cpu": True, "fp16": False}
    values |= {name: value for name, value in _NOT_OF_A_STEP.items() if name in values}
    values["bf16"] = stage.dtype != "float32" if stack is None else stack.autocast
    if stack is not None:
        values["optim"] = stack.optimizer
    return arguments.config_class(stage.method)(**values)


def lengths_of(request: Request) -> Lengths:
    """Tokens of every prompt and completion: the stage's longest."""
    return lengths(request.stage, read_shape(request.config(_main(request))))


def length_of(request: Request) -> int:
    """Tokens of every row."""
    return lengths_of(request).total


def _sft(request: Request, config: Any) -> Any:
    from trl import SFTTrainer

    build = Builder(request)
    return SFTTrainer(
        model=build.causal("model", build.trained),
        args=config,
        train_dataset=_rows(request, input_ids=length_of(request)),
        processing_class=tokenizer(),
        peft_config=models.lora_config(request.stage.peft, "CAUSAL_LM"),
    )


def _reward(request: Request, config: Any) -> Any:
    from trl import RewardTrainer

    length = length_of(request)
    return RewardTrainer(
        model=Builder(request).new_reward_model("model"),
        args=config,
        train_dataset=_rows(request, chosen_ids=length, rejected_ids=length),
        processing_class=tokenizer(),
        peft_config=models.lora_config(request.stage.peft, "SEQ_CLS"),
    )


def _dpo(request: Request, config: Any) -> Any:
    from trl import DPOTrainer

    build, main = Builder(request), _main(request)
    rows = _rows(request, prompt_ids=1, chosen_ids=length_of(request) - 1)
    rows = rows.add_column("rejected_ids", rows["chosen_ids"])
    known = ("ref_chosen_logps", "ref_rejected_logps")
    return _paired(DPOTrainer, request, config, build, main, rows, *known)


def _kto(request: Request, config: Any) -> Any:
    from trl import KTOTrainer

    build, main = Builder(request), _main(request)
    rows = _rows(request, prompt_ids=1, completion_ids=length_of(request) - 1)
    if config.loss_type != "apo_zero_unpaired":
        rows = rows.add_column("KL_completion_ids", rows["completion_ids"])
    rows = rows.add_column("label", [True] * len(rows))
    return _paired(KTOTrainer, request, config, build, main, rows, "ref_logps", "ref_KL_logps")


def _paired(
    kind: Any, request: Request, config: Any, build: Builder, main: str, rows: Any, *known: str
) -> Any:
    """A trainer of preferences. Its rows are tokenized; what is computed before, is there."""

    def with_known(self: Any, dataset: Any, *_: Any) -> Any:
        for name in known:
            dataset = dataset.add_column(name, [0.0] * len(dataset))
        return dataset

    module = importlib.import_module(kind.__module__)
    with (
        replaced(kind, _prepare_dataset=lambda self, dataset, *_: dataset),
        replaced(kind, _precompute_ref_logps=with_known),
        replaced(module, hash_module=lambda model: ""),
    ):
        return kind(
            model=build.causal(main, build.trained),
            ref_model=build.causal("reference", build.frozen) if _reads(request, config) else None,
            args=config,
            train_dataset=rows,
            processing_class=tokenizer(),
            peft_config=models.lora_config(request.stage.peft, "CAUSAL_LM"),
        )


def _ppo(request: Request, config: Any) -> Any:
    from launcher.worker.ppo.trainer import PPOTrainer

    build, main = Builder(request), _main(request)
    value = "value_model" in request.stage.models
    return PPOTrainer(
        model=build.causal(main, build.trained),
        reward_model=build.classifier("reward_model", build.frozen),
        ref_model=build.causal("reference", build.frozen) if _reads(request, config) else None,
        value_model=build.classifier("value_model", build.value) if value else None,
        args=config,
        train_dataset=_prompts(request, config),
        processing_class=tokenizer(),
        peft_config=models.lora_config(request.stage.peft, "CAUSAL_LM"),
    )


def _grpo(request: Request, config: Any) -> Any:
    from trl import GRPOTrainer

    return _grouped(GRPOTrainer, request, config)


def _rloo(request: Request, config: Any) -> Any:
    from trl import RLOOTrainer

    return _grouped(RLOOTrainer, request, config)


def _grouped(kind: Any, request: Request, config: Any) -> Any:
    """A trainer that compares completions of a prompt. It loads its reference by itself."""
    build, main = Builder(request), _main(request)

    def load(path: str, **chosen: Any) -> Any:
        return build.causal("reference", build.frozen)

    def no_reward(prompts: list[Any], **_: Any) -> list[float]:
        return [0.0] * len(prompts)

    scorer = "reward_model" in request.stage.models
    with replaced(importlib.import_module(kind.__module__), create_model_from_path=load):
        return kind(
            model=build.causal(main, build.trained),
            reward_funcs=build.classifier("reward_model", build.frozen) if scorer else no_reward,
            reward_processing_classes=tokenizer() if scorer else None,
            args=config,
            train_dataset=_prompts(request, config),
            processing_class=tokenizer(),
            peft_config=models.lora_config(request.stage.peft, "CAUSAL_LM"),
        )


def _main(request: Request) -> str:
    return METHODS[request.stage.method].main_role


def _reads(request: Request, config: Any) -> bool:
    """Whether a reference is loaded beside what trains: a frozen base is that of its adapter."""
    stage = request.stage
    main = stage.models.get(_main(request))
    if stage.peft is not None and stage.models.get("reference", main) == main:
        return False
    if stage.method == "ppo":
        return bool(config.kl_coef != 0)
    return not config.precompute_ref_log_probs


def _rows(request: Request, **columns: int) -> Any:
    """One micro-batch of rows: column → tokens."""
    from datasets import Dataset

    row = {name: [_TOKEN] * tokens for name, tokens in columns.items()}
    return Dataset.from_list([row] * request.settings.micro_batch)


def _prompts(request: Request, config: Any) -> Any:
    """The prompts of one rollout."""
    from datasets import Dataset

    prompt = " ".join([WORD] * lengths_of(request).prompt)
    return Dataset.from_list([{"prompt": prompt}] * config.generation_batch_size)


TRAINERS: dict[str, Callable[[Request, Any], Any]] = {
    "sft": _sft,
    "reward": _reward,
    "dpo": _dpo,
    "kto": _kto,
    "ppo": _ppo,
    "grpo": _grpo,
    "rloo": _rloo,
}
"""Method → how its trainer is made."""
