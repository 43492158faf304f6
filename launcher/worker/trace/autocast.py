"""CUDA's autocast on a CPU: the operators that it runs in float32, which a CPU's does not.

Sources: `ATen/autocast_mode.h` of torch, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE.
The operators that run in half precision are the same on both for what language models use.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FLOAT32 = frozenset(
    {
        "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p",
        "reciprocal", "rsqrt", "sinh", "tan", "pow", "__pow__", "softplus", "layer_norm",
        "group_norm", "norm", "cosine_similarity", "nll_loss", "cross_entropy", "mse_loss",
        "l1_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy_with_logits", "logsumexp",
        "cdist", "dist", "renorm", "rms_norm",
    }
)  # fmt: skip
"""Their half-precision arguments are cast."""
_FLOAT32_OUT = frozenset(
    {
        "softmax", "log_softmax", "cumprod", "cumsum", "prod", "sum", "linalg_norm",
        "linalg_vector_norm", "vector_norm",
    }
)  # fmt: skip
"""These compute in float32 from what they are given, unless told a dtype."""
_HALF = (torch.bfloat16, torch.float16)


class CudaAutocast(TorchFunctionMode):
    """Inside a region of CPU autocast, casts as CUDA's would; drops with a mask like CUDA's."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "dropout":
            return _dropout(*args, **kwargs)
        if (name in _FLOAT32 or name in _FLOAT32_OUT) and torch.is_autocast_enabled("cpu"):
            if name in _FLOAT32:
                args = tuple(_cast(arg) for arg in args)
            elif kwargs.get("dtype") is None and _is_half(args[0]):
                kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def of_a_checkpoint() -> tuple[AbstractContextManager[None], AbstractContextManager[Any]]:
    """Where a checkpoint runs its block, first and again: a backward pass leaves the mode."""
    return nullcontext(), CudaAutocast()


def _dropout(
    tensor: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """As CUDA's kernel, whose mask takes one byte an element; a CPU's is as wide as the tensor."""
    if not training or p == 0:
        return tensor
    return torch.native_dropout(tensor, p, True)[0]


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in _HALF


def _cast(value: Any) -> Any:
    return value.float() if _is_half(value) else value
