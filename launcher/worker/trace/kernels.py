"""What kernels on CUDA allocate where those of a CPU would not, or cannot under fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from launcher.worker.trace.tensors import Counted, Kernel, is_fake

aten = torch.ops.aten

_ROWS_PER_THREAD = 10
"""`NROWS_PER_THREAD` of EmbeddingBackwardKernel.cu."""
_SMALL_EMBEDDING = 3072
"""Up to so many tokens the embedding's gradient is made without a sort (Embedding.cu)."""
_CHUNK = 65536
"""Elements of a chunk of the multi-tensor kernels (MultiTensorApply.cuh)."""

MODELLED = (
    "attention: FlashAttention-2's tensors (output, log-sum-exp, and backward its accumulators)",
    "TRL's Triton kernels of the LM head: the tiles around them are real, the kernels are not run",
    "accumulating matrix products of the LM head (bf16 into float32) take no memory of their own",
    "selecting by a mask: its indices (16 bytes a token) and what sorting them takes",
    "the embedding's gradient: its sort, and its partial sums in float32 over 3072 tokens",
    "the gradient norm's partial results (4 bytes for 65536 elements of the largest tensor)",
    "PPO's generalised advantages: their two results, not the loop over tokens",
    "generation: the first and the last forward pass are run, sampling is three rows of logits",
    "rows are equally long: sdpa's mask of padded rows, and keys repeated for it, are not there",
    "left out: the workspace of cuBLAS (8 MiB, on Hopper 32), streams and the CUDA context",
)


def _number(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A number that is asked of a fake tensor is one; a condition, which is a check for NaN, no."""
    tensor = args[0]
    if not is_fake(tensor):
        return NotImplemented
    if tensor.dtype is torch.bool:
        return False
    return 1.0 if tensor.dtype.is_floating_point else 1


def _positions(mask: Tensor) -> list[Tensor]:
    """The indices that a mask becomes; a fake mask hides nothing."""
    shape, known = mask.shape, None if is_fake(mask) else mask
    with _disable_current_modes():
        known = torch.ones(shape, dtype=torch.bool) if known is None else known
        return list(torch.nonzero(known).t().contiguous().unbind(0))


def _by_position(indices: Any) -> list[Any] | None:
    """`indices` without masks, or None where there is none among them."""
    if not any(isinstance(i, Tensor) and i.dtype is torch.bool for i in indices):
        return None
    found: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, Tensor) and index.dtype is torch.bool
        found += _positions(index) if is_mask else [index]
    return found


def _index(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    tensor, indices = args
    if not is_fake(tensor):
        return NotImplemented
    positions = _by_position(indices)
    if positions is None:
        return NotImplemented
    with mode.ledger.holding(func._opname, *_sizes(positions)):
        return func(tensor, positions)


def _index_put(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    tensor, indices, values, *rest = args
    positions = _by_position(indices) or list(indices)
    given = next((p for p in positions if p is not None), None)
    count = 0 if given is None else given.numel()
    accumulates = bool(rest and rest[0])
    # Accumulation sorts: a linear index, the sorted one, and its order.
    scratch = [*_sizes(positions), *([8 * count] * 3 if accumulates else [])]
    with mode.ledger.holding(func._opname, *scratch):
        return func(tensor, positions, values, *rest, **kwargs)


def _nonzero(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Of a fake mask everything is there."""
    (mask,) = args
    if not is_fake(mask):
        return NotImplemented
    with _disable_current_modes():
        return torch.zeros((mask.numel(), mask.ndim), dtype=torch.int64)


def _masked_select(
    mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    tensor, mask = args
    if not is_fake(tensor):
        return NotImplemented
    positions = _positions(mask)
    with mode.ledger.holding(func._opname, *_sizes(positions)):
        return tensor.new_empty(positions[0].numel())


def _masked_scatter(
    mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    with mode.ledger.holding(func._opname, 8 * args[1].numel()):
        return func(*args, **kwargs)


def _masked_scatter_backward(
    mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    grad, mask, sizes = args
    with mode.ledger.holding(func._opname, *_sizes(_positions(mask))):
        return grad.new_empty(sizes)


def _embedding_gradient(
    mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    grad, indices, rows, *_ = args
    tokens, width = indices.numel(), grad.shape[-1]
    if tokens <= _SMALL_EMBEDDING:
        return NotImplemented
    segments = min(tokens, rows)
    partial = tokens // _ROWS_PER_THREAD + segments
    scratch = [8 * tokens] * 3 + [8 * segments] * 2 + [8 * partial, 4 * partial * width]
    result = func(*args, **kwargs)
    mode.count(result, func)
    with mode.ledger.holding(func._opname, *scratch):
        return result


def _norms(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    tensors = args[0]
    chunks = max(-(-tensor.numel() // _CHUNK) for tensor in tensors)
    with mode.ledger.holding(func._opname, 4 * chunks * len(tensors)):
        return func(*args, **kwargs)


def _grouped(mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The experts' product. In other precisions than bfloat16 CUDA makes it one group after the
    other, into the result (`_grouped_mm_fallback` of GroupedBlas.cpp); fake tensors refuse it."""
    one, other, offsets = args
    if not is_fake(one) or one.dtype is torch.bfloat16:
        return NotImplemented
    groups = [offsets.numel()] if other.ndim == 2 else []
    return one.new_empty([*groups, one.shape[0], other.shape[-1]])


def _sum_in_place(
    mode: Counted, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Gradients that meet in the backward pass: autograd adds the later to the earlier where nobody
    else holds that, but to a subclass, as fake tensors are, it never does."""
    one, other = args[0], args[1]
    meets = isinstance(other, Tensor) and is_fake(one) and mode.ledger.phase == "backward"
    if not meets or torch.is_grad_enabled() or one.shape != other.shape or one.dtype != other.dtype:
        return NotImplemented
    return one


def _sizes(positions: list[Any]) -> list[int]:
    return [8 * p.numel() for p in positions if isinstance(p, Tensor)]


KERNELS: dict[Any, Kernel] = {
    aten._local_scalar_dense.default: _number,
    aten.index.Tensor: _index,
    aten.index_put_.default: _index_put,
    aten._index_put_impl_.default: _index_put,
    aten.nonzero.default: _nonzero,
    aten.masked_select.default: _masked_select,
    aten.masked_scatter.default: _masked_scatter,
    aten.masked_scatter_backward.default: _masked_scatter_backward,
    aten.embedding_dense_backward.default: _embedding_gradient,
    aten._foreach_norm.Scalar: _norms,
    aten._grouped_mm.default: _grouped,
    aten.add.Tensor: _sum_in_place,
}


class Launch:
    """A Triton kernel that is not run: `kernel[grid](…)` works on tensors that are there."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *_, **__: None
