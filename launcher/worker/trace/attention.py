"""FlashAttention-2, as it allocates: which tensors it makes, saves and frees.

Read from its `flash_api.cpp` (the same code serves torch's scaled_dot_product_attention): forward
makes the output and the log-sum-exp in float32; backward makes the three gradients, a float32
accumulator for the query's with length rounded to 128 and head to 32, the row sums, and where
queries share keys the gradients of keys and values for each query head before they are summed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "counted"
"""Under this name transformers finds it. Without "flash", which would make it check for a GPU."""


class _Flash(torch.autograd.Function):
    """(B, heads, S, D) query, (B, kv heads, S, D) key and value → (B, heads, S, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, length, dim = query.shape
        out = query.new_empty(batch, length, heads, dim).transpose(1, 2)
        log_sum_exp = query.new_empty((batch, heads, length), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, log_sum_exp)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        batch, heads, length, dim = query.shape
        groups = heads // key.shape[1]
        rows = -(-length // 128) * 128
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
        scratch = [
            query.new_empty((batch, heads, rows), dtype=torch.float32),
            query.new_empty((batch, rows, heads, -(-dim // 32) * 32), dtype=torch.float32),
        ]
        if groups > 1:
            scratch += [query.new_empty(batch, length, heads, dim) for _ in range(2)]
        del scratch
        return d_query, d_key, d_value


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """What transformers calls: the output is (B, S, heads, D).

    torch's autocast runs scaled_dot_product_attention in half precision.
    """
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        query, key, value = (each.to(half) for each in (query, key, value))
    return _Flash.apply(query, key, value).transpose(1, 2), None


def register() -> None:
    """Make it known to transformers, with no mask to build."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    AttentionInterface.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *_, **__: None)
