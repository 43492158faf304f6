"""What of the training stack is replaced while a step is traced, and put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from launcher.worker.ppo import algorithm
from launcher.worker.trace import attention
from launcher.worker.trace.autocast import CudaAutocast
from launcher.worker.trace.kernels import Launch


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of `owner`, some of which it may not have, with other values."""
    missing = object()
    before = {name: getattr(owner, name, missing) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """TRL takes the way it takes on a GPU with Triton, and autocast casts as there."""
    import trl.kernels.chunked_logprob as head
    import trl.trainer.utils as utils

    attention.register()
    kernels = {
        "_use_triton": lambda device: True,
        "_forward_kernel": Launch(),
        "_backward_kernel": Launch(),
        "triton": SimpleNamespace(cdiv=lambda a, b: -(-a // b)),
        "_addmm_fp32": lambda *_: None,
    }
    with (
        replaced(head, **kernels),
        replaced(utils, _use_triton=kernels["_use_triton"]),
        replaced(algorithm, gae=_advantages),
        CudaAutocast(),
    ):
        yield


def _advantages(rewards: Any, values: Any, *_: Any) -> tuple[Any, Any]:
    """As large as `algorithm.gae`'s, without its loop over tokens, which takes minutes here."""
    advantages = rewards * values
    return advantages, advantages + values


@contextmanager
def without_weights() -> Iterator[None]:
    """Models stay on the `meta` device, wherever a trainer would put them."""
    import torch
    from accelerate import Accelerator
    from transformers import Trainer

    move = torch.nn.Module.to
    prepare = Accelerator.prepare_model

    def to(self: Any, *given: Any, **named: Any) -> Any:
        if all(parameter.device.type != "meta" for parameter in self.parameters()):
            return move(self, *given, **named)
        dtype = next((x for x in (*given, named.get("dtype")) if isinstance(x, torch.dtype)), None)
        return self if dtype is None else move(self, dtype)

    def prepare_model(
        self: Any, model: Any, device_placement: Any = None, evaluation_mode: bool = False
    ) -> Any:
        return prepare(self, model, device_placement=False, evaluation_mode=evaluation_mode)

    with ExitStack() as stack:
        stack.enter_context(replaced(torch.nn.Module, to=to))
        stack.enter_context(replaced(Accelerator, prepare_model=prepare_model))
        stack.enter_context(
            replaced(Trainer, _move_model_to_device=lambda self, model, device: None)
        )
        yield
