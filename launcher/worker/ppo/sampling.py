"""Sampling of completions for models with plain attention: what `generate` does, with less around.

`generate` serves every way of decoding, and asks at each token which one; for a small model that
takes longer than the model. It also computes rows that have ended until the last one has. This loop
only samples from the whole distribution, and rows that have ended leave the batch.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from trl import GRPOConfig
from trl.trainer.utils import pad


def serves(model: PreTrainedModel, args: GRPOConfig) -> bool:
    """Whether `sample` gives what `generate` would: the settings cut nothing off the distribution,
    the model takes what the loop gives it, and every layer of it keeps all keys and values."""
    plain = (
        not args.top_k
        and args.top_p == 1.0
        and not args.min_p
        and args.repetition_penalty == 1.0
        and args.cache_implementation is None
        and not args.generation_kwargs
    )
    takes = inspect.signature(type(model).forward).parameters
    if not plain or not {"position_ids", "past_key_values", "logits_to_keep"} <= set(takes):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


@torch.no_grad()
def sample(
    model: Any,
    prompts: list[list[int]],
    *,
    length: int,
    temperature: float,
    end_ids: list[int],
    pad_id: int,
    device: torch.device,
) -> list[list[int]]:
    """A completion of each prompt: up to `length` tokens, the last an end token where it ended."""
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = pad(rows, padding_value=pad_id, padding_side="left").to(device)
    mask = pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="left")
    # Without padding there is nothing to hide, and attention is faster for not being told so.
    known = None if bool(mask.all()) else mask.to(device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0).to(device)
    ends = torch.tensor(end_ids, device=device)
    written = torch.full((len(prompts), length), pad_id, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    there = torch.arange(len(prompts), device=device)  # which completion each row of the batch is
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    for step in range(length):
        output = model(
            input_ids=ids,
            attention_mask=known,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        token = _draw(output.logits[:, -1].float() / temperature)
        written[there[open_rows], step] = token[open_rows]
        lengths[there[open_rows]] = step + 1
        open_rows = open_rows & ~torch.isin(token, ends)
        left = int(open_rows.sum())
        if left == 0 or step + 1 == length:
            break
        if left <= len(there) // 2:
            kept = open_rows.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            there, token, positions = there[kept], token[kept], positions[kept]
            known = None if known is None else known[kept]
            open_rows = open_rows[kept]
        if known is not None:
            known = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
        ids, positions = token.unsqueeze(-1), positions[:, -1:] + 1
    whole = zip(written.tolist(), lengths.tolist(), strict=True)
    return [tokens[:count] for tokens, count in whole]


def _draw(logits: Tensor) -> Tensor:
    """One token of each row, (B,), from logits (B, V)."""
    probabilities = logits.softmax(dim=-1)
    if probabilities.device.type != "cpu":
        return torch.multinomial(probabilities, 1).squeeze(-1)
    # One random number a row, where `multinomial` draws one for each token of the vocabulary.
    sums = probabilities.double().cumsum(dim=-1)
    point = torch.rand(len(sums), 1, dtype=torch.float64) * sums[:, -1:]
    return torch.searchsorted(sums, point, right=True).squeeze(-1).clamp(max=sums.size(1) - 1)
