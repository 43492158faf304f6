"""Keys and values that TRL and transformers once used, as the TRL that recipes are read for has
them. The one table: `train:` blocks and the configs of `train_from` both go through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.problems import show

RENAMES: Mapping[str, str] = {
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "response_length": "max_completion_length",
    "evaluation_strategy": "eval_strategy",
    # A `warmup_steps` below one is a share of all steps, as the ratio was.
    "warmup_ratio": "warmup_steps",
    "init_kl_coef": "kl_coef",
    "ppo_epochs": "num_ppo_epochs",
    "num_train_steps": "max_steps",
    "use_liger": "use_liger_kernel",
    "use_liger_loss": "use_liger_kernel",
    "vllm_max_model_len": "vllm_max_model_length",
    "vllm_guided_decoding_regex": "vllm_structured_outputs_regex",
    "wandb_log_unique_prompts": "log_unique_prompts",
}
"""Old → new. Applied with a warning where the method's config has the new name alone."""

RLOO_RENAMES: Mapping[str, str] = {
    "rloo_k": "num_generations",
    "kl_coef": "beta",
    "init_kl_coef": "beta",
    "num_ppo_epochs": "num_iterations",
    "normalize_advantage": "normalize_advantages",
}
"""The same of RLOO, which had PPO's keys before it was built on GRPO."""

_CUT = "sequences are cut at `max_length` as a whole"
_PADDED = "the collator takes the padding from the tokenizer"
_VLLM = "vLLM's engine is set up by `vllm_mode` and its keys"
_TRAINER = "the trainer does so by itself where it may"
_SCRIPT = "it was an argument of the script"
_PRECISION = "`bf16` and `fp16` say all of precision"

REMOVED: Mapping[str, str] = {
    "max_completion_length": _CUT,
    "max_target_length": _CUT,
    "max_prompt_length": _CUT,
    "label_pad_token_id": _PADDED,
    "padding_value": _PADDED,
    "is_encoder_decoder": "only decoders are trained",
    "model_adapter_name": "adapters are named by the trainer",
    "ref_adapter_name": "adapters are named by the trainer",
    "force_use_ref_model": "the stage's `reference` says it",
    "ref_model_init_kwargs": "`model_init_kwargs` goes for every model of the stage",
    "base_model_attribute_name": _TRAINER,
    "generate_during_eval": "use a stage with `method: evaluate`",
    "use_logits_to_keep": _TRAINER,
    "use_num_logits_to_keep": _TRAINER,
    "precompute_ref_eval_batch_size": "use `precompute_ref_batch_size`",
    "tools": "a `tools` column of the rows says them",
    "dataset_num_proc": "rows are prepared where the trainer reads them",
    "dataset_batch_size": "rows are packed in one way",
    "num_of_sequences": "rows are packed in one way",
    "chars_per_token": "rows are packed in one way",
    "dataset_kwargs": "rows are tokenized in one way",
    "vllm_device": _VLLM,
    "vllm_dtype": "vLLM takes the stage's `dtype`",
    "vllm_init_kwargs": _VLLM,
    "vllm_enable_prefix_caching": "vLLM's own default goes",
    "ref_model_use_peft": "with an adapter the base is the reference",
    "kl_estimator": "the penalty uses the k1 estimator",
    "stop_token": "completions end at the tokenizer's end token",
    "stop_token_id": "completions end at the tokenizer's end token",
    "stop_sequence": "completions end at the tokenizer's end token",
    "num_sample_generations": "use a stage with `method: evaluate`",
    "local_rollout_forward_batch_size": "`resources.micro_batch` goes for it",
    "world_size": "the plan decides it",
    "exp_name": _SCRIPT,
    "sanity_check": _SCRIPT,
    "ignore_bias_buffers": _SCRIPT,
    "gradient_checkpointing_use_reentrant": "`resources.gradient_checkpointing` says it",
    "fp16_opt_level": _PRECISION,
    "fp16_backend": _PRECISION,
    "half_precision_backend": _PRECISION,
    "tp_size": "the plan decides it",
    "mp_parameters": "the plan decides it",
    "use_mps_device": "the cluster profile says what trainings compute on (`device`)",
    "use_ipex": "the cluster profile says what trainings compute on (`device`)",
    "tpu_num_cores": "the cluster profile says what trainings compute on (`device`)",
    "torchdynamo": "use `torch_compile`",
    "past_index": "no model here keeps one",
    "ray_scope": "there is no search here",
    "save_safetensors": "models are always saved so",
    "include_inputs_for_metrics": "use `include_for_metrics`",
    "include_tokens_per_second": "the launcher measures it",
    "dispatch_batches": "the launcher sets up the data loader",
    "split_batches": "the launcher sets up the data loader",
    "use_legacy_prediction_loop": "there is one loop",
    "eval_packing_strategy": "use `eval_packing`",
    "judge": "judges of pairs are no more; the stage's `rewards` or `reward_model` judge",
    "num_mini_batches": "use `generation_batch_size`, a multiple of the stage's `global_batch`",
    "total_episodes": "use `max_steps`",
    "token_level_kl": "the penalty is of whole completions",
    "normalize_reward": "advantages are normalized, by `normalize_advantages`",
}
"""Key that the installed TRL has no more → what is so in its place. Only where the method's config
has no such key."""

_LOSSES = {"aot_pair": "aot", "dpo": "sigmoid"}
_GONE_LOSSES = {"kto_pair": "use `method: kto`", "bco": "use `bco_pair`"}
_PACKINGS = {"ffd": "bfd", "bfd-requeue": "bfd_split"}
_OPTIMIZERS = {"adamw_hf": "adamw_torch", "adamw_apex_fused": "adamw_torch_fused"}
_SCALES = {True: "group", False: "none"}


@dataclass(frozen=True)
class Change:
    """What was done with a key, or what is wrong with it."""

    key: str
    node: Node
    text: str
    wrong: bool = False


def present(key: str, schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """What a config with the keys `schemas` calls `key` now: itself where it is one of them, or
    where it has no other name there."""
    if key in schemas:
        return key
    old = {**RENAMES, **RLOO_RENAMES} if "normalize_advantages" in schemas else RENAMES
    new = old.get(key, key)
    return new if new in schemas else key


def modernised(
    entries: Mapping[str, Node], schemas: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Node], list[Change]]:
    """`entries` of a config under the present names and values, and what was changed.

    `schemas` are those of the method's keys. Unknown keys stay as they are.
    """
    changes: list[Change] = []
    found: dict[str, Node] = {}
    for key, entry in entries.items():
        new = present(key, schemas)
        if new == key:
            found[key] = entry
        elif new in entries:
            text = f"the old name of {new!r}, which is given too; keep that"
            changes.append(Change(key, entry, text, wrong=True))
        else:
            found[new] = entry
            changes.append(Change(key, entry, f"now called {new}, taken as that"))
    for key, values in (("packing_strategy", _PACKINGS), ("optim", _OPTIMIZERS)):
        _valued(found, key, values, changes)
    if "scale_rewards" in schemas:
        _valued(found, "scale_rewards", _SCALES, changes)
    if "loss_type" in schemas:
        _losses(found, schemas, changes)
    for key, entry in found.items():
        if schemas.get(key, {}).get("type") == "array" and isinstance(
            entry.value, (str, int, float)
        ):
            found[key] = replace(entry, value=[entry])
    return found, changes


def _valued(
    found: dict[str, Node], key: str, values: Mapping[Any, str], changes: list[Change]
) -> None:
    entry = found.get(key)
    if entry is None or isinstance(entry.value, (list, dict)) or entry.value not in values:
        return
    # 1 and 0 are equal to true and false, and are other values.
    if isinstance(entry.value, bool) != isinstance(next(iter(values)), bool):
        return
    new = values[entry.value]
    changes.append(Change(key, entry, f"{show(entry.value)} is now {new!r}, taken as that"))
    found[key] = replace(entry, value=new)


def _losses(
    found: dict[str, Node], schemas: Mapping[str, Mapping[str, Any]], changes: list[Change]
) -> None:
    """DPO's losses: their names, `rpo_alpha` and `reference_free`."""
    if "loss_weights" not in schemas:
        return
    entry = found.get("loss_type")
    given = entry.value if entry is not None else None
    items = given if isinstance(given, list) else [entry] if entry and given is not None else []
    losses = []
    for item in items:
        gone, new = _GONE_LOSSES.get(str(item.value)), _LOSSES.get(str(item.value))
        if gone is not None:
            text = f"{show(item.value)} is no loss of DPO any more; {gone}"
            changes.append(Change("loss_type", item, text, wrong=True))
            continue
        if new is not None:
            text = f"{show(item.value)} is now {new!r}, taken as that"
            changes.append(Change("loss_type", item, text))
        losses.append(replace(item, value=new) if new is not None else item)
    if entry is not None and losses:
        found["loss_type"] = replace(entry, value=losses)
    elif items:
        del found["loss_type"]
    free = found.get("reference_free")
    if free is not None:
        del found["reference_free"]
        if free.value is True:
            text = "no loss here goes without a reference; leave it out, or take another method"
            changes.append(Change("reference_free", free, text, wrong=True))
    _rpo(found, losses, changes)


def _rpo(found: dict[str, Node], losses: list[Node], changes: list[Change]) -> None:
    alpha = found.get("rpo_alpha")
    if alpha is None:
        return
    del found["rpo_alpha"]
    if alpha.value is None:
        return
    weights = found.get("loss_weights")
    stated = weights is not None and weights.value is not None
    if stated or any(loss.value == "sft" for loss in losses):
        text = "losses with weights are given too; put the SFT term among them"
        changes.append(Change("rpo_alpha", alpha, text, wrong=True))
        return
    if isinstance(alpha.value, bool) or not isinstance(alpha.value, (int, float)):
        text = f"got {show(alpha.value)}, expected a number"
        changes.append(Change("rpo_alpha", alpha, text, wrong=True))
        return
    names = losses or [replace(alpha, value="sigmoid")]
    shared = [replace(alpha, value=weight) for weight in (*(1.0 for _ in names), alpha.value)]
    found["loss_type"] = replace(alpha, value=[*names, replace(alpha, value="sft")])
    found["loss_weights"] = replace(alpha, value=shared)
    said = ", ".join(str(loss.value) for loss in names)
    shares = ", ".join(str(weight.value) for weight in shared)
    text = f"now an SFT term, taken as `loss_type: [{said}, sft]`, `loss_weights: [{shares}]`"
    changes.append(Change("rpo_alpha", alpha, text))
