"""Training steps of a trainer under fake tensors, phase by phase."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from launcher.worker.trace.environment import as_on_cuda, replaced, without_weights
from launcher.worker.trace.kernels import KERNELS, MODELLED
from launcher.worker.trace.ledger import Ledger
from launcher.worker.trace.request import Refused, Request, Trace
from launcher.worker.trace.tensors import counting, materialize
from launcher.worker.trace.trainers import TRAINERS, trainer_of

_STEP = ("loss", "backward", "step")


def trace(request: Request) -> Trace | Refused:
    """The peaks of one optimizer step after the first, which leaves the optimizer's states."""
    refusal = _refusal(request)
    if refusal is not None:
        return Refused(request.stage.name, refusal)
    began = time.perf_counter()
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as folder, without_weights(), as_on_cuda():
        trainer = trainer_of(request, folder)
        _store_adapters(request, trainer)
        batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
        resident = _steps(request, trainer, batch, ledger)
    return Trace(
        name=request.stage.name,
        phases=dict(ledger.phases),
        resident=resident,
        live=tuple(ledger.at_peak().most_common(10)),
        modelled=MODELLED,
        seconds=round(time.perf_counter() - began, 2),
    )


def _refusal(request: Request) -> str | None:
    settings, stage = request.settings, request.stage
    if settings.processes > 1 or settings.zero_stage > 0:
        return "the trace runs one process without DeepSpeed; the formula adds what ZeRO divides"
    if stage.method not in TRAINERS:
        return f"the method {stage.method} has no training step that could be traced"
    if stage.peft is not None and stage.peft.quantization is not None:
        return "quantized weights need kernels that only a GPU has"
    return None


def _store_adapters(request: Request, trainer: Any) -> None:
    """Adapters in the precision that the stack says; PEFT makes them in float32."""
    if request.stack is None or request.stage.peft is None:
        return
    dtype = getattr(torch, request.stack.adapters)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _steps(request: Request, trainer: Any, batch: dict[str, Any], ledger: Ledger) -> int:
    """Run two optimizer steps; gives the bytes that stay after the second."""
    accumulation = request.settings.accumulation
    with counting(ledger, KERNELS) as counted:
        ledger.enter("load")
        with counted.labelled("weights"):
            for model in models_of(trainer):
                materialize(model)
        model = trainer.accelerator.prepare_model(trainer.model)
        trainer.model_wrapped = model
        optimizer = trainer.create_optimizer()
        _as_on_cuda(optimizer)
        trainer.current_gradient_accumulation_steps = accumulation
        if trainer.args.activation_checkpointing:
            trainer.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs=trainer.args.activation_checkpointing_kwargs
            )
        with _phases(trainer, ledger):
            for _ in range(2):
                ledger.forget(*_STEP)
                # The trainer fetches a whole step's batches, and accelerate one more.
                with counted.labelled("batch"):
                    batches = [
                        {name: tensor.clone() for name, tensor in batch.items()}
                        for _ in range(accumulation + 1)
                    ]
                items = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
                # Gradients are there from the second micro-batch on, and more change nothing.
                for inputs in batches[: min(accumulation, 2)]:
                    trainer.training_step(model, inputs, items)
                ledger.enter("step")
                if trainer.args.max_grad_norm:
                    trainer._clip_grad_norm(model)
                optimizer.step()
                model.zero_grad()
        return ledger.live


def models_of(trainer: Any) -> list[Any]:
    """Every model that sits on the GPU, the one that trains first."""
    return [trainer.model]


def _as_on_cuda(optimizer: Any) -> None:
    """Where nobody chose, torch's optimizers work on all tensors at once on CUDA only."""
    for group in optimizer.param_groups:
        if group.get("foreach", False) is None and not group.get("fused"):
            group["foreach"] = True


@contextmanager
def _phases(trainer: Any, ledger: Ledger) -> Any:
    """Says when the forward and the backward pass begin."""

    def entering(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def entered(*given: Any, **named: Any) -> Any:
            ledger.enter(phase)
            return function(*given, **named)

        return entered

    accelerator = trainer.accelerator
    with (
        replaced(trainer, compute_loss=entering("loss", trainer.compute_loss)),
        replaced(accelerator, backward=entering("backward", accelerator.backward)),
    ):
        yield
