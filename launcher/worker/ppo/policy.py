"""What the policy's forward gives for completions: log-probabilities, entropy, values."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from launcher.worker.ppo import value

WHOLE_LOGITS = 2**24
"""Logits (tokens × vocabulary) up to which a CPU computes them whole: 64 MiB in float32."""


@dataclass
class PolicyOutput(FusedCausalLMOutput):
    """What a policy returns for T completion tokens: TRL's per-token fields, and values."""

    token_values: Tensor | None = None
    """(B, T): the value of the state that each token was chosen in; None where not asked for."""


def score_completions_only(
    model: PreTrainedModel, temperature: float, *, entropy_gradient: bool
) -> None:
    """Let `model(..., fused_lm_head=True, completion_length=T)` score the last T tokens only.

    The LM head is the dearest layer of a small model, and TRL's fused one runs over the prompt as
    well where it has no Triton. With `with_values=True` the output has the values of those tokens,
    from the value function attached to the model. Needs TRL's `add_fused_lm_head` first.

    TRL's head never holds whole logits and computes them a second time for the gradient, which
    takes half of a small model's step where there is no Triton. So a CPU scores what fits in
    `WHOLE_LOGITS` at once, and the entropy only `with_entropy=True`. A gradient goes through the
    entropy where `entropy_gradient`.
    """
    fused_forward = model.forward
    vocabulary = model.config.get_text_config().vocab_size

    @functools.wraps(type(model).forward)
    def forward(
        self: Any,
        *args: Any,
        fused_lm_head: bool = False,
        completion_length: int | None = None,
        with_values: bool = False,
        with_entropy: bool = False,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or completion_length is None:
            return fused_forward(*args, fused_lm_head=fused_lm_head, **kwargs)
        # The hidden state before a token scores it, hence one position more than tokens.
        window = slice(-1 - completion_length, None)
        states: list[Tensor] = []

        def keep_window(module: Any, inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[:, window]
            states.append(output.last_hidden_state)
            return output

        labels = kwargs.pop("labels")[:, window]
        fits = (
            labels.device.type == "cpu"
            and labels.numel() * vocabulary <= WHOLE_LOGITS
            and "output_router_logits" not in kwargs
        )
        hook = self.base_model.register_forward_hook(keep_window)
        try:
            if fits:
                logits = fused_forward(*args, use_cache=False, **kwargs).logits
                scored, every = _of_logits(logits / temperature, labels)
                if with_entropy:
                    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
                        entropy = -(every.exp() * every).sum(dim=-1)
                        scored.entropy = entropy.masked_fill(~scored.label_mask, 0)
            else:
                scored = fused_forward(*args, fused_lm_head=True, labels=labels, **kwargs)
        finally:
            hook.remove()
        values = None
        if with_values:
            values = getattr(self, value.ATTRIBUTE)(
                states[0][:, :-1],
                input_ids=kwargs["input_ids"],
                attention_mask=kwargs["attention_mask"],
            )
        return PolicyOutput(**scored, token_values=values)

    model.forward = MethodType(forward, model)


def _of_logits(logits: Tensor, labels: Tensor) -> tuple[FusedCausalLMOutput, Tensor]:
    """What TRL's fused head returns, and all log-probabilities (B, T, V).

    From logits (B, T + 1, V) and labels (B, T + 1). Labels of −100 are padding, whose figures are
    0.
    """
    mask = labels[:, 1:] != -100
    every = logits[:, :-1].float().log_softmax(dim=-1)
    taken = every.gather(-1, labels[:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return FusedCausalLMOutput(log_probs=taken.masked_fill(~mask, 0), label_mask=mask), every
