"""Training steps of a trainer under fake tensors, phase by phase."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch

from launcher.memory.stack import Stack
from launcher.recipe.methods import METHODS
from launcher.worker.trace.autocast import of_a_checkpoint
from launcher.worker.trace.environment import as_on_cuda, replaced, without_weights
from launcher.worker.trace.kernels import KERNELS, MODELLED
from launcher.worker.trace.ledger import Ledger
from launcher.worker.trace.request import Refused, Request, Trace
from launcher.worker.trace.rollout import generating
from launcher.worker.trace.tensors import Counted, counting, materialize
from launcher.worker.trace.trainers import TRAINERS, lengths_of, trainer_of

_KERNELS = "kernels that others put in place of transformers' own are not run"
_LOSSES = ("fused head", "stock")


def trace(request: Request) -> Trace | Refused:
    """The peaks of one optimizer step after the first, which leaves the optimizer's states."""
    refusal = _refusal(request)
    if refusal is not None:
        return Refused(request.stage.name, refusal)
    from transformers import Trainer

    began = time.perf_counter()
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as folder, without_weights(), as_on_cuda():
        try:
            trainer = trainer_of(request, folder)
        except ValueError as error:
            return Refused(request.stage.name, f"its trainer refuses it: {error}")
        _store_adapters(request, trainer)
        if request.stack is not None and request.stack.loss == "stock":
            trainer.compute_loss = MethodType(Trainer.compute_loss, trainer)
        resident = _steps(request, trainer, ledger)
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
    if settings.device == "cpu":
        return "the trace counts what a GPU would hold"
    if stage.method == "online_dpo":
        return "online DPO generates and scores inside its training step, which is not traced"
    if stage.method not in TRAINERS:
        return f"the method {stage.method} has no training step that could be traced"
    if stage.train.get("use_vllm"):
        return "vLLM generates in memory of its own"
    if stage.train.get("use_liger_kernel"):
        return _KERNELS
    if stage.peft is not None and stage.peft.quantization is not None:
        return "quantized weights need kernels that only a GPU has"
    if request.stack is not None:
        return _refused_stack(request.stack, stage.method)
    return None


def _refused_stack(stack: Stack, method: str) -> str | None:
    if stack.base != "dense":
        return "quantized weights need kernels that only a GPU has"
    if stack.fused or stack.residual is not None:
        return _KERNELS
    if stack.loss not in _LOSSES:
        return f"the loss `{stack.loss}` is not run, only {' and '.join(_LOSSES)}"
    if stack.loss == "stock" and method != "sft":
        return f"TRL computes the loss of {method} without the whole logits"
    return None


def _store_adapters(request: Request, trainer: Any) -> None:
    """Adapters in the precision that the stack says; PEFT makes them in float32."""
    if request.stack is None or request.stage.peft is None:
        return
    dtype = getattr(torch, request.stack.adapters)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _steps(request: Request, trainer: Any, ledger: Ledger) -> int:
    """Run the optimizer step after the first; gives the bytes that stay after it."""
    # For methods that generate, the rows of a rollout; else a micro-batch, collated.
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    completion = lengths_of(request).completion
    with counting(ledger, KERNELS) as counted:
        ledger.enter("load")
        with counted.labelled("weights"):
            for model in _models(trainer):
                materialize(model)
        model = trainer.accelerator.prepare_model(trainer.model)
        trainer.model_wrapped = model
        optimizer = trainer.create_optimizer()
        _as_on_cuda(optimizer)
        trainer.current_gradient_accumulation_steps = request.settings.accumulation
        if trainer.args.activation_checkpointing:
            chosen = dict(trainer.args.activation_checkpointing_kwargs or {})
            if not chosen.get("use_reentrant"):
                chosen["context_fn"] = of_a_checkpoint
            trainer.model.activation_checkpointing_enable(activation_checkpointing_kwargs=chosen)
        with _phases(trainer, ledger), generating(trainer, ledger, completion):
            ledger.enter("first step")
            if METHODS[request.stage.method].online:
                _step(trainer, model, optimizer, batch, ledger, counted)
            else:
                _leave_states(optimizer)
            ledger.forget()
            fetched = _step(trainer, model, optimizer, batch, ledger, counted)
        resident = ledger.live
        del fetched  # until here: a batch lives until the next step's are there
        return resident


def _step(
    trainer: Any, model: Any, optimizer: Any, batch: Any, ledger: Ledger, counted: Counted
) -> list[Any]:
    """One optimizer step as `Trainer` makes it, with a rollout where the method has any.

    Gives the batches that it fetched.
    """
    accumulation = trainer.args.gradient_accumulation_steps
    trainer._step = 0
    # The trainer fetches a whole step's batches, and accelerate one more.
    with counted.labelled("batch"):
        batches = [_copy(batch) for _ in range(accumulation + 1)]
    items = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    # Gradients are there from the second micro-batch on, and more change nothing.
    for inputs in batches[: min(accumulation, 2)]:
        trainer.training_step(model, inputs, items)
    ledger.enter("step")
    if trainer.args.max_grad_norm:
        trainer._clip_grad_norm(model)
    optimizer.step()
    model.zero_grad()
    return batches


def _leave_states(optimizer: Any) -> None:
    """What a first step leaves behind: the optimizer's states."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _models(trainer: Any) -> list[torch.nn.Module]:
    """Every model that sits on the GPU, the one that trains first."""
    others = [getattr(trainer, "ref_model", None), *getattr(trainer, "reward_funcs", [])]
    return [trainer.model, *(one for one in others if isinstance(one, torch.nn.Module))]


def _copy(batch: Any) -> Any:
    """A batch on the GPU; rows that are still text stay on the host."""
    if isinstance(batch, list):
        return batch
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


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
