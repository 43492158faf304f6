"""What a process takes beside its tensors: the CUDA context, NCCL, cuBLAS's workspace."""

from __future__ import annotations

from launcher.memory.types import GIB, Settings

CONTEXT = GIB // 2
"""The CUDA context with the kernels of torch, cuBLAS and cuDNN that a training loads."""
NCCL = GIB // 2
"""NCCL's channels and buffers, where several processes talk."""
CUBLAS_WORKSPACE = 8 * 2**20 + 4096 * 2**10
"""torch's default `CUBLAS_WORKSPACE_CONFIG` on Ampere (`:4096:2:16:8`), counted as allocated."""
INTERPRETER = GIB // 2
"""On CPU: the interpreter with torch (measured)."""


def around(settings: Settings) -> dict[str, int]:
    """Items of every phase."""
    if settings.device == "cpu":
        return {"context": INTERPRETER}
    return {
        "cublas workspace": CUBLAS_WORKSPACE,
        "context": CONTEXT + (NCCL if settings.processes > 1 else 0),
    }
