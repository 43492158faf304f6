"""Generation without sampling: the forward passes that need most, on completions of full length.

The first pass (over the prompts, filling the cache) and the last (with the cache at its longest)
are the model's own; between them the cache only grows. What `generate` does with the last logits is
modelled: a float32 copy, its softmax, and the random numbers of `multinomial`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from launcher.worker.trace.environment import replaced
from launcher.worker.trace.ledger import Ledger

_TOKEN = 2


def generating(trainer: Any, ledger: Ledger, completion: int) -> Any:
    """While this is entered, `trainer` samples completions of that many tokens without sampling."""
    if not hasattr(trainer, "_generate_single_turn"):
        return _nothing()
    stand_ins = {"_generate_single_turn": _sampler(trainer, ledger, completion)}
    if hasattr(trainer, "_trimmed"):
        # Every row is as long as the longest, which masks without numbers cannot tell.
        stand_ins["_trimmed"] = lambda batch: batch
    return replaced(trainer, **stand_ins)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _sampler(trainer: Any, ledger: Ledger, completion: int) -> Callable[..., Any]:
    from trl import RLOOTrainer

    def single_turn(prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        ledger.enter("rollout")
        _passes(trainer, len(prompt_ids), max(map(len, prompt_ids)), completion)
        ledger.enter("score")
        sampled = [[_TOKEN] * completion for _ in prompt_ids]
        return sampled if isinstance(trainer, RLOOTrainer) else (sampled, None)

    return single_turn


def _passes(trainer: Any, rows: int, prompt: int, completion: int) -> None:
    from transformers import DynamicCache
    from trl.models.utils import unwrap_model_for_generation

    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
    ):
        out = _forward(model, rows, prompt, prompt, DynamicCache(config=model.config))
        _sample(out)
        first = out.past_key_values.layers[0].keys
        dtype, heads, width = first.dtype, first.shape[1], first.shape[3]
        del out, first
        length = prompt + completion - 1
        cache = DynamicCache(config=model.config)
        for layer in range(model.config.num_hidden_layers):
            keys, values = (torch.empty(rows, heads, length, width, dtype=dtype) for _ in range(2))
            cache.update(keys, values, layer)
            del keys, values
        _sample(_forward(model, rows, 1, length + 1, cache))


def _forward(model: Any, rows: int, tokens: int, length: int, cache: Any) -> Any:
    """The model's output for `tokens` new ones, which make `length` with those in the cache."""
    return model(
        input_ids=torch.full((rows, tokens), _TOKEN, dtype=torch.int64),
        attention_mask=torch.ones((rows, length), dtype=torch.int64),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )


def _sample(output: Any) -> Tensor:
    logits = output.logits[:, -1, :].to(copy=True, dtype=torch.float32)
    probabilities = torch.softmax(logits, dim=-1)
    return torch.empty_like(probabilities)
