"""Per-device batch × accumulation × processes of a config → the stage's `global_batch`."""

from __future__ import annotations

from launcher.recipe.document import Node
from launcher.recipe.problems import show
from launcher.recipe.trl_yaml.flat import Flat

_DEFAULT = 8
"""Transformers' `per_device_train_batch_size`."""


def take(flat: Flat, processes: int | None, gpus: int, like: Node) -> None:
    """`processes` are those of an accelerate config, `gpus` those that the recipe pins, or 1."""
    each, times = (
        _count(flat, "per_device_train_batch_size"),
        _count(flat, "gradient_accumulation_steps"),
    )
    flat.leave_out(
        "per_device_eval_batch_size", "the plan decides it (`resources.micro_batch` pins it)"
    )
    flat.leave_out("auto_find_batch_size", "the plan decides the micro-batch")
    if flat.method.config is None or flat.method.result == "report":
        return
    node = each[0] or times[0] or like
    stated = flat.stated.get("global_batch")
    if stated is not None and isinstance(stated.value, int):
        batch = stated.value
    else:
        count = processes or gpus
        batch = each[1] * times[1] * count
        flat.give("global_batch", node, batch)
        missing = "" if each[0] else " (TRL's default, for it is not said)"
        kind = "processes of accelerate" if processes else "GPU" + "s" * (count > 1)
        way = "" if processes or gpus > 1 else "; say `resources.gpus` or give accelerate's config"
        text = f"{each[1]}{missing} × accumulation {times[1]} × {count} {kind} taken as "
        flat.note(node, "per_device_train_batch_size", f"{text}`global_batch: {batch}`{way}")
    _episodes(flat, batch)


def _count(flat: Flat, key: str) -> tuple[Node | None, int]:
    """The entry and its value, or the default; a wrong one is a problem, and counts as one."""
    node = flat.take(key)
    if node is None:
        return None, _DEFAULT if key == "per_device_train_batch_size" else 1
    if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 1:
        flat.wrong(node, key, f"got {show(node.value)}, expected a whole number, at least 1")
        return node, 1
    return node, node.value


def _episodes(flat: Flat, batch: int) -> None:
    """TRL's PPO, and RLOO before it was built on GRPO, counted their length in completions; a
    rollout feeds several optimizer steps."""
    if flat.method.name == "ppo":
        parts, epochs = _stated(flat, "num_mini_batches", 1), _stated(flat, "num_ppo_epochs", 4)
    elif flat.method.name == "rloo":
        parts, epochs = _rollout(flat, batch), _stated(flat, "num_ppo_epochs", 1)
    else:
        return
    node, total = _count(flat, "total_episodes")
    if node is None:
        return
    rollouts = -(-total // (batch * parts))
    steps = rollouts * parts * epochs
    flat.give("train.max_steps", node, steps)
    text = f"{total} completions are {rollouts} rollouts, taken as `max_steps: {steps}`"
    flat.note(node, "total_episodes", text)


def _stated(flat: Flat, key: str, default: int) -> int:
    node = flat.left.get(key)
    return int(node.value) if node is not None and isinstance(node.value, int) else default


def _rollout(flat: Flat, batch: int) -> int:
    """Steps a rollout of RLOO's, which is now told by its size."""
    node, parts = _count(flat, "num_mini_batches")
    if node is not None and parts > 1:
        flat.give("train.generation_batch_size", node, batch * parts)
        text = f"{parts} steps a rollout, taken as `generation_batch_size: {batch * parts}`"
        flat.note(node, "num_mini_batches", text)
    return parts
