"""A flat config written for `trl METHOD --config`, of this TRL or an older one → a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.recipe.document import Node
from launcher.recipe.fields import fields, trl_version
from launcher.recipe.methods import Method
from launcher.recipe.owned import OWNED
from launcher.recipe.problems import Problem, join, suggest
from launcher.recipe.renames import REMOVED, RLOO_RENAMES, present
from launcher.recipe.trl_yaml import batch, data, model, peft, rewards
from launcher.recipe.trl_yaml.accelerate import processes
from launcher.recipe.trl_yaml.flat import Flat, built
from launcher.recipe.trl_yaml.keys import TAKEN

_HUB = "jobs upload nothing; upload the finished model from the run's folder"
_TRACKER = "metrics go into the run's folder"
_OWN_SCRIPT = "it is of another script's own"
_LAUNCH = (
    "accelerate_config", "num_processes", "num_machines", "machine_rank", "main_process_ip",
    "main_process_port", "mixed_precision", "gpu_ids", "multi_gpu", "use_deepspeed", "zero_stage",
)  # fmt: skip
"""What `trl` hands on to `accelerate launch`."""
_CHECKPOINTING = "the plan decides it (`resources.gradient_checkpointing` pins it)"

LEFT_OUT: Mapping[str, str] = {
    **{key: reason for key, reason in OWNED.items() if not reason.startswith("use ")},
    "gradient_checkpointing": _CHECKPOINTING,
    "gradient_checkpointing_kwargs": _CHECKPOINTING,
    "activation_checkpointing": _CHECKPOINTING,
    "activation_checkpointing_kwargs": _CHECKPOINTING,
    **dict.fromkeys(_LAUNCH, "the plan decides how processes are started"),
    "do_eval": "`eval_strategy` says when it evaluates",
    "do_predict": "a stage with `method: evaluate` does so",
    "hub_model_revision": _HUB,
    "push_to_hub_revision": _HUB,
    "push_to_hub_model_id": _HUB,
    "push_to_hub_organization": _HUB,
    "push_to_hub_token": "tokens never stand in a recipe",
    "overwrite_hub_revision": _HUB,
    "wandb_entity": _TRACKER,
    "wandb_project": _TRACKER,
    "wandb_run_group": _TRACKER,
    "callbacks": _OWN_SCRIPT,
    "benchmarks": _OWN_SCRIPT,
}
"""Keys that ask for what the launcher does by itself, with the reason."""

_PRESENT_DEFAULTS = {
    "grpo": {"beta": "0.0 (once 0.04)", "loss_type": "dapo (once grpo, then bnpo)"},
    "rloo": {"learning_rate": "1e-6 (once 5e-5)", "num_iterations": "1 (`num_ppo_epochs` once 4)"},
    "sft": {"learning_rate": "2e-5 (once 5e-5)"},
}
"""Method → key that older TRLs had another default for, in words."""

_OLD = ("torch_dtype", "max_prompt_length", "rpo_alpha")
_TELLING = {"rloo": (*RLOO_RENAMES, "num_mini_batches", "token_level_kl", "total_episodes")}
"""Method → the keys of the TRLs that had those defaults, where not every old key tells."""

_FOR_TRAIN = ("rpo_alpha", "reference_free")


@dataclass(frozen=True)
class Around:
    """What else decides what a config means."""

    processes: int | None = None
    """Of an accelerate config given beside it."""
    gpus: int = 1
    """What the recipe pins."""


def convert(
    node: Node,
    method: Method,
    stated: Node,
    at: str,
    around: Around,
    problems: list[Problem],
    warnings: list[str],
) -> Node:
    """The stage at `at` that the config `node` describes, without what `stated` says of it."""
    if method.config is None or method.result == "report":
        text = f"{method.name} takes no config of TRL; write the stage out"
        problems.append(Problem(node.place, "", text))
        return replace(node, value={})
    flat = Flat(dict(node.items), method, stated, problems, warnings, at)
    _age(flat, node)
    model.take(flat)
    data.take(flat)
    peft.take(flat)
    rewards.take(flat)
    batch.take(flat, around.processes or processes(node), around.gpus, node)
    flat.give("seed", flat.take("seed"))
    flat.give("env", flat.take("env"))
    _values(flat)
    for key, reason in LEFT_OUT.items():
        flat.leave_out(key, reason)
    _train(flat)
    flat.say_left_out()
    return built(flat.stage, node)


def _values(flat: Flat) -> None:
    """Keys whose values want a word, or are said elsewhere."""
    saves = flat.left.get("save_strategy")
    if saves is not None and saves.value == "no":
        flat.leave_out("save_strategy", "a run without checkpoints could not be resumed")
    grouped = flat.left.get("group_by_length")
    if grouped is not None:
        del flat.left["group_by_length"]
        if grouped.value is True:
            flat.give("train.train_sampling_strategy", grouped, "group_by_length")
    if flat.method.name == "dpo":
        flat.leave_out("padding_free", "TRL's DPO trainer pads all the same")
    if flat.method.name == "dpo" and (loss := flat.left.get("loss_type")) is not None:
        losses = loss.value if isinstance(loss.value, list) else [loss]
        if any(each.value == "aot" for each in losses):
            text = "`aot` compares pairs in this TRL; what was `aot` once is now `aot_unpaired`"
            flat.note(loss, "loss_type", text)
    ratio, steps = flat.left.get("warmup_ratio"), flat.left.get("warmup_steps")
    if ratio is not None and steps is not None:
        # Where both stood, steps above zero went first.
        loser = "warmup_ratio" if steps.value else "warmup_steps"
        flat.leave_out(loser, "the other of `warmup_ratio` and `warmup_steps` goes first")
    options = flat.left.get("dataset_kwargs")
    if options is not None and flat.method.name == "sft":
        kept = {key: each for key, each in options.items.items() if key == "skip_prepare_dataset"}
        gone = [key for key in options.items if key not in kept]
        if gone:
            flat.leave_out("dataset_kwargs", f"TRL no longer reads {', '.join(gone)}")
            if kept:
                flat.left["dataset_kwargs"] = replace(options, value=kept)
    uses = flat.left.get("use_vllm")
    if uses is not None and uses.value is True and "vllm_mode" not in flat.left:
        default = fields(flat.method.name).schemas.get("vllm_mode", {}).get("default")
        flat.note(uses, "use_vllm", f"`vllm_mode` is {default} unless it is said (once: server)")


def _age(flat: Flat, node: Node) -> None:
    """Of a config with old names: the defaults that are others by now."""
    known = fields(flat.method.name).schemas
    telling = _TELLING.get(flat.method.name)
    old = [
        key
        for key in flat.left
        if (key in telling if telling else present(key, known) != key or key in _OLD)
    ]
    new = _PRESENT_DEFAULTS.get(flat.method.name, {})
    silent = [
        f"`{key}` {text}"
        for key, text in new.items()
        if key not in {present(each, known) for each in flat.left} and not flat.says(f"train.{key}")
    ]
    if old and silent:
        text = f"written for an older TRL; what it does not say is as in {trl_version()}: "
        flat.warnings.append(f"{node.place}: {text}{', '.join(silent)}")


def _train(flat: Flat) -> None:
    """What is left is the method's own config, or is wrong."""
    known = fields(flat.method.name)
    for key, node in list(flat.left.items()):
        del flat.left[key]
        new = present(key, known.schemas)
        if flat.says(f"train.{new}") or (key in _FOR_TRAIN and flat.says("train.loss_type")):
            continue  # the recipe's word goes first
        special = key in _FOR_TRAIN and "loss_weights" in known.schemas
        if new in known.schemas or key in known.refused or special:
            flat.stage.setdefault("train", {})[key] = node
        elif key in REMOVED:
            flat.leave_out(key, f"gone from TRL: {REMOVED[key]}", node)
        elif key in OWNED:
            if node.value is not None:
                flat.wrong(node, key, f"not taken: {OWNED[key]}")
        else:
            near = suggest(key, (*known.schemas, *TAKEN, *LEFT_OUT))
            text = f"no key of {known.config} (TRL {trl_version()}) or of TRL's scripts{near}"
            flat.wrong(node, join("", key), text)
