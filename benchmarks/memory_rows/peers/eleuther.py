"""EleutherAI's "Transformer Math 101", in our own words.

Source: blog.eleuther.ai/transformer-math, sections on training memory. Mixed precision: weights 2
bytes, gradients 2, Adam with its float32 copy 12; ZeRO divides them by the number of GPUs.
Activations with s tokens, b sequences, h hidden, a heads, L layers: 2·s·b·h·L where all are
recomputed, else s·b·h·L·(34 + 5·a·s/h). It has neither adapters nor quantization: in its favour
gradients and optimizer are counted for what trains only, and the base at the width it is stored.
"""

from __future__ import annotations

from benchmarks.memory_rows.case import Case
from launcher.memory.lengths import lengths
from launcher.memory.lora import adapter_parameters
from launcher.memory.states import BASE_BYTES
from launcher.memory.whole import whole_parameters


def estimate(case: Case) -> float:
    shape, peft, settings = case.shapes["model"], case.stage.peft, case.settings
    length = lengths(case.stage, shape).total
    trained = shape.parameters
    if peft is not None:
        trained = adapter_parameters(peft, shape) + whole_parameters(peft, shape)
    width = BASE_BYTES.get(case.stack.base, 2)
    gpus, stage = settings.processes, settings.zero_stage
    weights = width * shape.parameters / (gpus if stage == 3 else 1)
    gradients = 2 * trained / (gpus if stage >= 2 else 1)
    optimizer = 12 * trained / (gpus if stage >= 1 else 1)
    each = 2.0
    if not settings.gradient_checkpointing:
        each = 34 + 5 * shape.heads * length / shape.hidden
    tokens = length * settings.micro_batch
    return weights + gradients + optimizer + tokens * shape.hidden * shape.layers * each
