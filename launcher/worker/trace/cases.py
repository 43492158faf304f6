"""The designed set of traces that the formula is held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
        "tie_word_embeddings": True, "max_position_embeddings": 32768,
    },
    "llama-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False, "max_position_embeddings": 131072,
    },
}  # fmt: skip
"""True widths and vocabularies; each case says how many layers."""

LORA = {"r": 16, "alpha": 32, "targets": "all-linear"}
QV = {"r": 16, "alpha": 32, "targets": ["q_proj", "v_proj"]}
BF16 = {"weights": "bfloat16", "autocast": False, "adapters": "float32"}
STACKS = {"bf16": BF16}


@dataclass(frozen=True)
class Case:
    """A request as plain data, no longer than it must be."""

    stage: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    stack: Mapping[str, Any] | None = field(default=None)


def case(
    model: str,
    layers: int,
    method: str = "sft",
    *,
    batch: int = 2,
    length: int = 1024,
    checkpointing: bool = False,
    accumulation: int = 1,
    peft: Mapping[str, Any] | None = None,
    stack: Mapping[str, Any] | None = None,
    **train: Any,
) -> Case:
    role = "model"
    marks = [
        method, model, f"{layers}l", f"b{batch}", f"s{length}",
        _label(peft), "ckpt" if checkpointing else "",
        f"acc{accumulation}" if accumulation > 1 else "", _stack_label(stack),
    ]  # fmt: skip
    stage: dict[str, Any] = {
        "name": "-".join(mark for mark in marks if mark),
        "method": method,
        "models": {role: model},
        "train": {"max_length": length, **train},
    }
    if peft is not None:
        stage["peft"] = dict(peft)
    return Case(
        stage=stage,
        configs={role: {**CONFIGS[model], "num_hidden_layers": layers}},
        settings={
            "micro_batch": batch,
            "accumulation": accumulation,
            "gradient_checkpointing": checkpointing,
        },
        stack=stack,
    )


def _label(peft: Mapping[str, Any] | None) -> str:
    if peft is None:
        return "full"
    kind = "dora" if peft.get("dora") else "lora"
    return kind if isinstance(peft["targets"], str) else f"{kind}-qv"


def _stack_label(stack: Mapping[str, Any] | None) -> str:
    return "" if stack is None else next(name for name, one in STACKS.items() if one == stack)


def cases() -> tuple[Case, ...]:
    """Every case, in the order of the file."""
    return tuple(_sft())


def _sft() -> Iterator[Case]:
    for model, layers in (("qwen2-0.5b", 4), ("llama-8b", 3)):
        for peft in (None, LORA, QV):
            for checkpointing in (False, True):
                for batch, length in ((2, 1024), (8, 512), (1, 4096)):
                    yield case(
                        model, layers, batch=batch, length=length,
                        checkpointing=checkpointing, peft=peft,
                    )  # fmt: skip
                yield case(model, layers, checkpointing=checkpointing, peft=peft, stack=BF16)
                yield case(model, layers, checkpointing=checkpointing, peft=peft, accumulation=2)
