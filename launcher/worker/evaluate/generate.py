"""Completions of prompts, and the log-probabilities that a model gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from launcher.worker.evaluate.config import EvaluateConfig


@dataclass(frozen=True)
class Completion:
    """What a model sampled for one prompt."""

    prompt_ids: list[int]
    ids: list[int]
    """The sampled tokens, with the end token where there was one."""
    text: str
    """Without special tokens."""
    ended: bool


def prompt_tokens(prompt: Any, tokenizer: Any) -> list[int]:
    """The tokens of a text, or of messages through the chat template up to the answer."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def given(prompt: Any, completion: Any, tokenizer: Any, longest: int) -> Completion:
    """A completion of the data's own, at most `longest` tokens, as SFT learns it.

    Text ends with the end token, messages as the chat template ends them. Tokens that prompt and
    completion share count with the completion. Without a completion it has no tokens.
    """
    if completion is None or len(completion) == 0:
        return Completion(prompt_tokens(prompt, tokenizer), [], "", ended=False)
    if isinstance(prompt, str):
        text = completion if isinstance(completion, str) else completion[0]["content"]
        whole = list(tokenizer(prompt + text + tokenizer.eos_token)["input_ids"])
    else:
        said = [{"role": "assistant", "content": completion}]
        answer = said if isinstance(completion, str) else list(completion)
        text = tokenizer.apply_chat_template([*prompt, *answer], tokenize=False)
        whole = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    asked = prompt_tokens(prompt, tokenizer)
    shared = next(
        (i for i, pair in enumerate(zip(asked, whole, strict=False)) if pair[0] != pair[1]),
        min(len(asked), len(whole)),
    )
    # The first token of all follows none that could foretell it.
    shared = max(1, shared)
    return Completion(whole[:shared], whole[shared:][:longest], text, ended=True)


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    config: EvaluateConfig,
    *,
    batch_size: int,
    seed: int,
    synced: bool = False,
    on_batch: Callable[[], None],
) -> list[Completion]:
    """One completion a prompt, in order. The same arguments give the same completions.

    `synced` keeps all ranks at it until the last has finished, as ZeRO-3 needs.
    """
    stops = _end_tokens(model, tokenizer)
    # In place of the model's own: what that leaves unset here would be taken from there.
    model.generation_config = _generation_config(config, stops, tokenizer.pad_token_id)
    completions: list[Completion] = []
    for start in range(0, len(prompts), batch_size):
        batch = [prompt_tokens(prompt, tokenizer) for prompt in prompts[start : start + batch_size]]
        ids, mask = padded(batch, tokenizer.pad_token_id, "left", model.device)
        torch.manual_seed(seed + start)
        output = model.generate(input_ids=ids, attention_mask=mask, synced_gpus=synced)
        for prompt, row in zip(batch, output[:, ids.size(1) :].tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(row) if token in stops), None)
            sampled = row[:end]
            completions.append(
                Completion(
                    prompt_ids=prompt,
                    ids=sampled,
                    text=tokenizer.decode(sampled, skip_special_tokens=True),
                    ended=end is not None,
                )
            )
        on_batch()
    return completions


@torch.no_grad()
def log_probabilities(
    model: Any,
    completions: Sequence[Completion],
    pad: int,
    temperature: float,
    *,
    batch_size: int,
    on_batch: Callable[[], None],
) -> list[float]:
    """The log-probability (nats) of each completion's tokens, summed, at `temperature`.

    The model runs for every batch, also where none of its completions has tokens.
    """
    sums: list[float] = []
    for start in range(0, len(completions), batch_size):
        batch = completions[start : start + batch_size]
        prompt, prompt_mask = padded([c.prompt_ids for c in batch], pad, "left", model.device)
        ids, mask = padded([c.ids for c in batch], pad, "right", model.device)
        attended = torch.cat([prompt_mask, mask], dim=1)
        logits = model(
            input_ids=torch.cat([prompt, ids], dim=1),
            attention_mask=attended,
            position_ids=(attended.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=ids.size(1) + 1,
            use_cache=False,
        ).logits[:, :-1]
        sums += [
            _sum_of_log_probabilities(row[: len(c.ids)], c.ids, temperature)
            for row, c in zip(logits, batch, strict=True)
        ]
        on_batch()
    return sums


def _sum_of_log_probabilities(logits: Tensor, ids: list[int], temperature: float) -> float:
    # Row by row, so that the float32 copy is of one completion's logits.
    every = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = every.gather(1, torch.tensor(ids, dtype=torch.long, device=every.device)[:, None])
    return float(chosen.sum())


def padded(rows: Sequence[list[int]], pad: int, side: str, device: Any) -> tuple[Tensor, Tensor]:
    """Token rows as ids and attention mask, both (B, T), padded on `side` to the longest."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    zeros = [[0] * len(row) for row in fill]
    left = side == "left"
    ids = [f + r if left else r + f for r, f in zip(rows, fill, strict=True)]
    mask = [z + o if left else o + z for o, z in zip(ones, zeros, strict=True)]
    # The type also where no row has a token.
    long = {"dtype": torch.long, "device": device}
    return torch.tensor(ids, **long), torch.tensor(mask, **long)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's end token, and those that the model was saved with."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return sorted({token for token in (*own, tokenizer.eos_token_id) if token is not None})


def _generation_config(config: EvaluateConfig, stops: list[int], pad: int) -> Any:
    from transformers import GenerationConfig

    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
        if config.temperature > 0
        else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=config.max_completion_length,
        eos_token_id=stops,
        pad_token_id=pad,
        **sampling,
    )
