"""The configs of `accelerate launch` and of DeepSpeed: the plan takes their place. Only how many
processes they start is taken, for it is part of the batch."""

from __future__ import annotations

from launcher.recipe.document import Node
from launcher.recipe.problems import show
from launcher.recipe.trl_yaml.keys import TAKEN

_ACCELERATE = ("compute_environment", "distributed_type", "main_process_port", "num_processes",
               "rdzv_backend")  # fmt: skip
_DEEPSPEED = ("zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size")


def is_accelerate(node: Node) -> bool:
    """Whether the file at `node` is a config of accelerate or DeepSpeed, and of nothing else."""
    theirs = any(key in node.items for key in (*_ACCELERATE, *_DEEPSPEED))
    return theirs and not any(key in node.items for key in TAKEN)


def processes(node: Node) -> int | None:
    """The processes that it starts; None where it does not say."""
    count = node.get("num_processes")
    if count is None or isinstance(count.value, bool) or not isinstance(count.value, int):
        return None
    return count.value if count.value > 0 else None


def note(node: Node) -> str:
    """What is made of it, in words, with its place."""
    engine, pins = _engine(node)
    way = f" ({', '.join(f'`resources.{pin}`' for pin in pins)} would pin it)" if pins else ""
    count = processes(node)
    taken = f"; its {count} processes count for the batch" if count else ""
    return f"{node.place} {engine}: left to the plan{way}{taken}"


def _engine(node: Node) -> tuple[str, list[str]]:
    """What it sets up, and the pins that say the same."""
    inner = node.get("deepspeed_config") or node
    zero = inner.get("zero_stage") or (inner.get("zero_optimization") or node).get("stage")
    if zero is not None:
        where = [
            key
            for key in ("offload_optimizer_device", "offload_param_device")
            if (each := inner.get(key)) is not None and each.value not in ("none", "null")
        ]
        stage = f"zero_stage: {show(zero.value)}"
        offload = f"offload: {'all' if len(where) == 2 else 'optimizer'}"
        return f"DeepSpeed's ZeRO stage {show(zero.value)}", [stage, offload][: 1 + bool(where)]
    if node.get("fsdp_config") is not None:
        return "FSDP", ["zero_stage: 3"]
    kind = node.get("distributed_type")
    return f"accelerate's {str(kind.value).lower() if kind else 'set-up'}", []
