"""What the software does with a stage's tensors: precisions, kernels, optimizer.

The plan decides `Settings`; the recipe and the installed packages decide the `Stack`. Every field
names a mechanism that moves memory, so that a run of another framework is described, not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.recipe.types import Dtype

Base = Literal["dense", "nf4", "nf4-double", "int8", "gptq4"]
"""How the frozen weights of an adapter's base are stored. NF4: packed to half a byte with one
float32 scale for 64 weights, or that scale itself in 8 bits (double quantization)."""
Attention = Literal["flash", "sdpa", "eager"]
Loss = Literal["fused head", "stock", "liger", "chunked"]
"""What is kept of the logits. `fused head`: TRL's Triton kernels, tiles only. `stock`: the whole
logits, their float32 copy, and the gradient. `liger`: the loss fused with the head's product, in
chunks. `chunked`: whole logits, but cross-entropy over a piece at a time."""


@dataclass(frozen=True)
class Stack:
    """Defaults are those of a bfloat16 training in plain TRL, weights in bfloat16."""

    weights: Dtype = "bfloat16"
    """Storage of what trains, or of the base of an adapter."""
    compute: Dtype = "bfloat16"
    autocast: bool = False
    """Whether matrix products cast what is not in `compute` to it (`bf16=True` of a trainer)."""
    adapters: Dtype = "float32"
    """Storage of LoRA's matrices."""
    base: Base = "dense"
    optimizer: str = "adamw_torch_fused"
    """A value of transformers' `OptimizerNames`."""
    attention: Attention = "flash"
    loss: Loss = "fused head"
    fused: frozenset[str] = frozenset()
    """Kernels that keep only their inputs: `rms_norm`, `rope`, `swiglu`, `lora`."""
    sharding: Literal["zero", "fsdp"] = "zero"
    """Whose rules divide states where `Settings.zero_stage` is above 0."""
