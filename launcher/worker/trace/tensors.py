"""Fake tensors that are counted: shapes and lifetimes are real, the numbers are not.

Integers of a batch stay real, because models and trainers decide by them: where a sequence ends,
whether a mask hides anything, how many tokens are scored.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter

from launcher.worker.trace.ledger import Ledger

Kernel = Callable[["Counted", Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""(mode, operator, arguments, keywords) → the operator's result: what CUDA would do in its place.
`NotImplemented` leaves it to the operator itself."""


class Counted(TorchDispatchMode):
    """Counts the storage of every tensor that an operator makes, until it dies.

    `kernels`: operator → what stands in for it; `names`: labels of storages by their first sight.
    """

    def __init__(self, ledger: Ledger, kernels: Mapping[Any, Kernel]) -> None:
        super().__init__()
        self.ledger = ledger
        self.kernels = kernels
        self.label: str | None = None
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default and is_fake(args[0]):
            return args[0].fake_device
        kwargs = kwargs or {}
        kernel = self.kernels.get(func)
        result = NotImplemented if kernel is None else kernel(self, func, args, kwargs)
        if result is NotImplemented:
            result = self.run(func, args, kwargs)
        self.count(result, func)
        return result

    def count(self, result: Any, func: Any) -> None:
        """Count what `func` made, once."""
        name = self.label or func._opname
        for leaf in tree_iter(result):
            if isinstance(leaf, Tensor):
                self._see(leaf, name)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The operator, on real numbers where those are known integers, else on fake tensors."""
        if _is_known(args, kwargs):
            with _disable_current_modes():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """What is made here is called `label` and not by its operators."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def _see(self, tensor: Tensor, name: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = self.ledger.add(name, storage.nbytes())
        weakref.finalize(storage, self._dead, key, name, size)

    def _dead(self, key: int, name: str, size: int) -> None:
        self._seen.discard(key)
        self.ledger.free(name, size)


def _is_known(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the operator only works on small real tensors, ids and masks of (B, S) at most."""
    tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors:
        dtype = kwargs.get("dtype")
        return dtype is not None and not (dtype.is_floating_point or dtype.is_complex)
    return all(
        not isinstance(tensor, FakeTensor) and tensor.device.type == "cpu" and tensor.ndim <= 2
        for tensor in tensors
    )


def is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor)


@contextmanager
def counting(ledger: Ledger, kernels: Mapping[Any, Kernel]) -> Iterator[Counted]:
    """Every tensor made in here is fake, but for known integers, and counted in `ledger`."""
    with FakeTensorMode(allow_non_fake_inputs=True), Counted(ledger, kernels) as counted:
        yield counted


def materialize(model: nn.Module) -> None:
    """Replace `model`'s parameters and buffers by fake tensors on their device; ties stay ties."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or is_fake(parameter):
                continue
            if id(parameter) not in made:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and not is_fake(buffer):
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
