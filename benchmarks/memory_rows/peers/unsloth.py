"""Unsloth's formula, in our own words.

Source: github.com/unslothai/unsloth, studio/backend/utils/hardware/VRAM_ESTIMATION.md (2026).
"""

from __future__ import annotations

from benchmarks.memory_rows.case import Case
from launcher.memory.lengths import lengths
from launcher.memory.lora import adapter_parameters

_OVERHEAD = 1.4 * 2**30
_OPTIMIZER = {"adamw_8bit": 4, "adamw_bnb_8bit": 4, "paged_adamw_32bit": 8, "sgd": 4}
"""Bytes a trained parameter; 6 for torch's AdamW."""


def estimate(case: Case) -> float:
    """Weights, adapters, optimizer and gradients are divided by the number of GPUs; activations and
    the overhead are not."""
    shape, peft, settings = case.shapes["model"], case.stage.peft, case.settings
    h, m, kv = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_dim
    experts = max(shape.experts, 1)
    router = experts * h if experts > 1 else 0
    packed = shape.layers * ((2 * h + 2 * kv) * h + 3 * h * m * experts + router)
    heads = 1 if shape.tied_embeddings else 2
    rest = 2 * h * shape.layers + heads * shape.vocab * h
    four_bit = case.stack.base in ("nf4", "nf4-double", "gptq4")
    ratio = 3.6 if case.stack.base == "nf4-double" else 3.2
    weights = 2 * rest + (2 * packed / ratio if four_bit else 2 * packed)
    trained = adapter_parameters(peft, shape) if peft else packed + rest
    adapters = 2 * trained if peft else 0
    optimizer = _OPTIMIZER.get(case.stack.optimizer, 6) * trained

    tokens = settings.micro_batch * lengths(case.stage, shape).total
    layer = tokens * (h + 2 * kv + 2 + 2 * m) * 2 * 1.25
    layers = shape.layers if not settings.gradient_checkpointing else 1 if peft else 2
    activations = layer * layers
    if case.stack.attention == "eager":
        scores = tokens * lengths(case.stage, shape).total * shape.heads
        activations = max(activations, scores * 2 * 12 * layers)

    floor = 0.15 * weights
    if peft:
        floor = min(floor, max(activations, optimizer))
    gradients = max(2 * trained, floor)
    return (weights + adapters + optimizer + gradients) / settings.processes + (
        activations + _OVERHEAD
    )
