"""What a process takes beside its tensors: the CUDA context, NCCL, and the allocator's slack."""

from __future__ import annotations

from launcher.memory.stack import Stack
from launcher.memory.types import GIB, Settings

CONTEXT = GIB // 2
"""The CUDA context with the kernels of torch, cuBLAS and cuDNN that a training loads."""
NCCL = GIB // 2
"""NCCL's channels and buffers, where several processes talk."""
CUBLAS_WORKSPACE = 8 * 2**20 + 4096 * 2**10
"""torch's default `CUBLAS_WORKSPACE_CONFIG` on Ampere (`:4096:2:16:8`), counted as allocated."""
INTERPRETER = GIB // 2
"""On CPU: the interpreter with torch (measured)."""
EXPANDABLE = 0.04
"""Reserved over allocated where segments can grow (`expandable_segments`)."""
SEGMENTS = {"whole logits": 0.18, "tiles": 0.10, "fsdp": 0.15}
"""Where they cannot: a block that was freed serves no larger one. Medians of the public rows that
have both figures; the last is added where weights are gathered and let go of all the time."""


def around(tensors: int, settings: Settings, stack: Stack) -> dict[str, int]:
    """Items of a phase whose tensors take `tensors` bytes."""
    if settings.device == "cpu":
        return {"context": INTERPRETER}
    slack = EXPANDABLE
    if not stack.expandable:
        tiles = stack.loss in ("fused head", "liger")
        slack = SEGMENTS["tiles" if tiles else "whole logits"]
        slack += SEGMENTS["fsdp"] if settings.zero_stage == 3 else 0.0
    return {
        "cublas workspace": CUBLAS_WORKSPACE,
        "fragmentation": int(slack * tensors),
        "context": CONTEXT + (NCCL if settings.processes > 1 else 0),
    }
