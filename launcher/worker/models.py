"""Loading of models and tokenizers, with the checks that keep a wrong one from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.plan.agreement import ADDED, PADS, differ, foreign
from launcher.recipe.types import Peft, Stage
from launcher.worker import quantize
from launcher.worker.context import Context

SAFE: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
"""No pickle is read. Code that lies beside a model runs where `Context.loads` says so."""


def tokenizer(context: Context) -> Any:
    """The stage's tokenizer, with a padding token that is not the end of a sequence.

    Raises UsageError where none can be found: trainers would fall back to the end token, and a
    policy that never sees its own end token in the loss does not learn to stop.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(context.tokenizer, **context.loads)
    if context.stage.chat_template is not None:
        loaded.chat_template = context.stage.chat_template
    for key in ("eos_token", "pad_token"):
        if isinstance(context.stage.train.get(key), str):
            setattr(loaded, key, context.stage.train[key])
    if loaded.pad_token is None or loaded.pad_token == loaded.eos_token:
        vocabulary = loaded.get_vocab()
        free = [t for t in PADS if t in vocabulary and t != loaded.eos_token]
        if not free:
            raise UsageError(
                f"the tokenizer {context.tokenizer} has no padding token apart from its end token",
                hint="save it with a pad_token of its own, and name that folder as `tokenizer`",
            )
        loaded.pad_token = free[0]
    return loaded


def check_tokens(folder: str, read_by: Any, *, trust_remote_code: bool = False) -> None:
    """Raises UsageError where the model in `folder`, which the tokenizer `read_by` reads for,
    numbers its tokens otherwise. Of one without a tokenizer nothing is known."""
    from transformers import AutoTokenizer

    if Path(folder).is_dir() and not (Path(folder) / "tokenizer_config.json").is_file():
        return
    try:
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return
    if differ(read_by.get_vocab(), own.get_vocab(), ADDED):
        raise UsageError(foreign(folder, read_by.name_or_path))


def weights_dtype(context: Context) -> Any:
    """The torch dtype that the weights of a training are loaded in."""
    return trained_dtype(context.stage, deepspeed=context.stage_plan.deepspeed is not None)


def trained_dtype(stage: Stage, *, deepspeed: bool) -> Any:
    """The torch dtype that the weights of a training have.

    Weights that train keep a float32 master: DeepSpeed makes it from half-precision weights, and
    without DeepSpeed the weights themselves are it, under autocast. Frozen bases of adapters stay
    in the stage's dtype.
    """
    import torch

    if not deepspeed and stage.peft is None:
        return torch.float32
    return getattr(torch, stage.dtype)


def frozen_dtype(context: Context) -> Any:
    """The torch dtype of models that only read: the stage's."""
    import torch

    return getattr(torch, context.stage.dtype)


def causal(context: Context, folder: str) -> Any:
    """A causal language model to train, in the way that the stage stores it. Raises UsageError for
    a reward model's folder, and where weights cannot be quantized here."""
    return load_causal(folder, weights_dtype(context), **_trained(context))


def frozen_causal(context: Context, folder: str) -> Any:
    """A causal language model that only reads. Raises UsageError for a reward model's folder."""
    return load_causal(folder, frozen_dtype(context), **_chosen(context))


def reference_of(context: Context, *, weight: float = 1.0) -> str | None:
    """The model that the distance to it is weighed against; None where none is loaded for it.

    That is the policy at its start, if the recipe names no other: with an adapter its base, which
    is there already; else a copy, which trainers would load in the policy's precision.
    """
    policy = context.model("policy")
    reference = context.model("reference") or policy
    if weight == 0 or (context.stage.peft is not None and reference == policy):
        return None
    return reference


def _trained(context: Context) -> dict[str, Any]:
    """How the model that trains is loaded: what the recipe says, and how its base is stored."""
    return _chosen(context) | quantize.options(context)


def _chosen(context: Context) -> dict[str, Any]:
    """What the recipe says of how models are loaded; TRL takes it as JSON text too."""
    given = context.stage.train.get("model_init_kwargs") or {}
    return {**(json.loads(given) if isinstance(given, str) else given), **context.loads}


def load_causal(folder: str, dtype: Any, **chosen: Any) -> Any:
    """The causal language model in `folder` (or an adapter on its base), in a torch dtype.

    Raises UsageError for a reward model's folder.
    """
    from transformers import AutoModelForCausalLM

    if _is_classifier(folder):
        raise UsageError(f"{folder} is a reward model, where a policy is needed")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **(SAFE | chosen))
    if getattr(model.config, "output_router_logits", False):
        # SFT leaves it on in what it saves, and no such mixture of experts can generate: the load
        # of the experts would be balanced over a mask of another length. Trainers ask for it.
        model.config.output_router_logits = False
    return model


def new_reward_model(context: Context, folder: str, pad: int) -> Any:
    """A one-label sequence classifier on the trunk of `folder`, its head new unless it has one.

    The head trains beside an adapter too, so that without DeepSpeed it is float32 in any case.
    """
    model = _classifier(folder, weights_dtype(context), pad, **_trained(context))
    if context.stage_plan.deepspeed is None:
        model.score.float()
    return model


def value_model(context: Context, folder: str, pad: int) -> Any:
    """As `new_reward_model`; it trains whole, whatever the policy does."""
    import torch

    alone = context.stage_plan.deepspeed is None
    dtype = torch.float32 if alone else frozen_dtype(context)
    return _classifier(folder, dtype, pad, **_chosen(context))


def trained_reward_model(context: Context, folder: str, pad: int) -> Any:
    """A reward model that was trained as one, in the stage's dtype. Raises UsageError."""
    return load_reward_model(folder, frozen_dtype(context), pad, **_chosen(context))


def load_reward_model(folder: str, dtype: Any, pad: int, **chosen: Any) -> Any:
    """The trained reward model in `folder`, in a torch dtype. Raises UsageError.

    A policy's folder would load too, with a head of random weights.
    """
    if not _is_classifier(folder):
        raise UsageError(
            f"{folder} is not a reward model: its config.json names no sequence classifier",
            hint="refer to a stage of method `reward`, or to a folder that holds a reward model",
        )
    # Once it is loaded, it has the one label that it is asked for.
    labels = _labels(folder)
    if labels != 1:
        raise UsageError(f"the reward model {folder} has {labels} labels; it needs one, the score")
    return _classifier(folder, dtype, pad, **chosen)


def _labels(folder: str) -> int:
    """How many labels a classifier's own config names; of an adapter, those it was trained with."""
    if (Path(folder) / "adapter_config.json").is_file():
        return 1
    return len(_config(folder).get("id2label") or ("0", "1"))


def _classifier(folder: str, dtype: Any, pad: int, **chosen: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=dtype, **(SAFE | chosen)
    )
    model.config.pad_token_id = pad
    return model


def _config(folder: str) -> dict[str, Any]:
    """What a model's config.json says, of which no code makes anything."""
    from transformers import PreTrainedConfig

    return dict(PreTrainedConfig.get_config_dict(folder)[0])


def _is_classifier(folder: str) -> bool:
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        return bool(json.loads(adapter.read_text()).get("task_type") == "SEQ_CLS")
    architectures = _config(folder).get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def lora(context: Context, task: str) -> Any | None:
    """The stage's `peft.LoraConfig`, or None for full training."""
    return lora_config(context.stage.peft, task)


def lora_config(peft: Peft | None, task: str) -> Any | None:
    """The `peft.LoraConfig` of a recipe's adapter, for a PEFT task type."""
    from peft import LoraConfig

    if peft is None:
        return None
    keep = list(peft.modules_to_save)
    if task == "SEQ_CLS" and "score" not in keep:
        keep.append("score")
    return LoraConfig(
        task_type=task,
        r=peft.r,
        lora_alpha=peft.alpha,
        lora_dropout=peft.dropout,
        target_modules=peft.targets if isinstance(peft.targets, str) else list(peft.targets),
        modules_to_save=keep or None,
        use_dora=peft.dora,
    )
