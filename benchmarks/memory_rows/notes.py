"""What the columns of free text tell: metric, versions, precision, what divides the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from benchmarks.memory_rows.case import Metric, Unknowable
from benchmarks.memory_rows.row import Row
from launcher.memory.optimizers import OPTIMIZERS
from launcher.memory.stack import Loss
from launcher.recipe.types import Dtype, Offload


def metric(row: Row) -> tuple[Metric, str | None]:
    """(what the peak counts, what is left open about it)."""
    text = (row.note("metric") or "").lower()
    if "reserved" in text:
        return "reserved", None
    if "allocated" in text:
        return "allocated", None
    if "nvidia" in text or "smi" in text:
        return "total", None
    if "active" in text:
        return "allocated", None
    if "max_memory" in text:
        return "allocated", f"what {text!r} counts is not stated"
    # What people read off their screen is the whole process.
    if not text or "unstated" in text:
        return "total", "what the figure counts is not stated"
    return "total", f"what {text!r} counts is not stated"


_OF_ROWS = {
    "sft": ("model",),
    "reward": ("model",),
    "dpo": ("policy", "reference"),
    "kto": ("policy", "reference"),
}
"""Method → the models on the device; with adapters the reference is the policy's own base."""
_GENERATE = ("ppo", "grpo", "rloo", "online_dpo", "online-dpo")


def method(row: Row) -> tuple[str, tuple[str, ...]]:
    """(the launcher's name, its roles). Raises Unknowable for what it does not train, and for what
    generates, whose memory one length does not tell."""
    name = re.split(r"[^a-z_-]", row.method.lower())[0]
    name = {"rm": "reward", "reward_model": "reward"}.get(name, name)
    if name in _GENERATE:
        raise Unknowable(f"{row.method} generates: prompt and completion lengths are not told")
    if name not in _OF_ROWS:
        raise Unknowable(f"{row.method!r} is not a method of the launcher's")
    roles = _OF_ROWS[name]
    return name, roles if row.peft.lower().strip().startswith("full") else roles[:1]


_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adam": "adamw_torch",
    "adamw8bit": "adamw_bnb_8bit",
    "8-bit adamw": "adamw_bnb_8bit",
    "pagedadamw": "paged_adamw_32bit",
    "pagedadamw8bit": "paged_adamw_8bit",
}


def optimizer(row: Row) -> str:
    """transformers' name of it. Raises Unknowable for one that the launcher does not know."""
    name = row.optimizer.lower().split("(", 1)[0].strip()
    known = name if name in OPTIMIZERS else _OPTIMIZERS.get(name)
    if known is None:
        raise Unknowable(f"the optimizer {row.optimizer!r} is none that the launcher knows")
    return known


_OF_THEIR_OWN = ("unsloth", "llama-factory", "llamafactory", "axolotl", "xtuner")


def framework(row: Row) -> str | None:
    """What is left open where another framework's kernels ran, or None."""
    text = f"{row.source} {row.notes}".lower()
    named = next((name for name in _OF_THEIR_OWN if name in text), None)
    return f"which kernels {named} ran" if named else None


def liger(row: Row) -> bool:
    return re.search(r"liger\s*[=:]?\s*(true|yes|on|1)\b", row.notes.lower()) is not None


def precision(row: Row) -> tuple[Dtype, bool]:
    """(of the stored weights, whether autocast runs). Raises Unknowable."""
    text = row.precision.lower().removeprefix("pure ")
    if "unstated" in text or "/" in text:
        raise Unknowable(f"the precision is not told: {row.precision!r}")
    mixed = "amp" in text or "mixed" in text
    if text.startswith("bf16") or text.startswith("bfloat16"):
        return "bfloat16", mixed
    if text.startswith(("fp16", "float16", "16-")):
        return "float16", mixed
    if text.startswith(("fp32", "float32", "32-", "tf32")):
        return "float32", mixed
    raise Unknowable(f"the precision is not told: {row.precision!r}")


def loss(version: str | None) -> Loss:
    """transformers' own loss at that version: `rebound` below 4.46, `shifted` to 4.49, then
    `stock` (labels are padded instead of logits shifted). Raises Unknowable without a version."""
    if version is None:
        raise Unknowable("the version of transformers, which tells the loss, is not stated")
    if older(version, 4, 46):
        return "rebound"
    return "shifted" if older(version, 4, 50) else "stock"


def repeats_heads(family: str, version: str) -> bool:
    """Whether transformers at that version repeats keys and values before FlashAttention: some
    families did before 4.48."""
    return family in ("mistral", "mixtral", "qwen2") and older(version, 4, 48)


def older(version: str, *than: int) -> bool:
    return tuple(int(part) for part in version.split(".")[: len(than)]) < than


def of_its_time(row: Row) -> str:
    """A version of transformers from before or after 4.46 (October 2024), by the month of the paper
    that has the row, or by the present one."""
    paper = re.search(r"arxiv\.org/\w+/(\d{4})\.", row.url)
    return "4.40" if paper and paper[1] < "2410" else "4.56"


def version(row: Row, package: str) -> str | None:
    found = re.search(rf"{package}[ =v]*(\d+(?:\.\d+)+)", row.notes.lower())
    return found[1] if found else None


@dataclass(frozen=True)
class Sharding:
    kind: Literal["none", "zero", "fsdp"]
    stage: int = 0


def sharding(row: Row) -> Sharding:
    """Raises Unknowable for what the launcher does not do, or a guess."""
    text = row.sharding.lower()
    if text in ("", "none", "ddp"):
        return Sharding("none")
    if "unstated" in text:
        raise Unknowable(f"what divides the model over GPUs is not told: {row.sharding!r}")
    if "grad_op" in text or "hybrid" in text:
        raise Unknowable(f"{row.sharding} is not what the launcher does")
    if text.startswith("fsdp"):
        return Sharding("fsdp", 3)
    if (stage := re.match(r"(?:deepspeed )?zero-?(\d)", text)) is not None:
        return Sharding("zero", int(stage[1]))
    raise Unknowable(f"{row.sharding} is not what the launcher does")


def offload(row: Row) -> Offload:
    text = row.offload.lower()
    if "params" in text:
        return "all"
    return "optimizer" if "optimizer" in text and "paged" not in text else "none"


def needed(row: Row) -> tuple[int, int, int]:
    """(GPUs, sequences of a forward pass, tokens of each). Raises Unknowable."""
    if row.n_gpus is None:
        raise Unknowable("the number of GPUs is not stated")
    if row.micro_batch is None:
        raise Unknowable("the batch is not stated")
    if row.seq_len is None:
        raise Unknowable("rows are not packed, and the length of the longest is not stated")
    return row.n_gpus, row.micro_batch, row.seq_len
