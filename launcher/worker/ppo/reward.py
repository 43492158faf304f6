"""The reward model: that it fits the policy, and the scores that it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl.data_utils import apply_chat_template, is_conversational

from launcher.worker.models import SAFE


def load_scorer(source: str, **init: Any) -> PreTrainedModel:
    """The reward model in a folder or on the hub, with one label.

    Raises `ValueError` where it is a causal language model: that would load with a score head of
    random numbers.
    """
    config = Path(source) / "config.json"
    if config.is_file():
        architectures = json.loads(config.read_text()).get("architectures") or []
        if architectures and not any("SequenceClassification" in name for name in architectures):
            raise ValueError(
                f"The reward model in {source} is a {architectures[0]}, not a sequence-"
                "classification model: train one with the reward method, or point to one."
            )
    return AutoModelForSequenceClassification.from_pretrained(source, **(SAFE | init), num_labels=1)


def load_value_model(source: str, **init: Any) -> PreTrainedModel:
    """A value model to train, from a reward model or (with a fresh score head) from a policy."""
    return AutoModelForSequenceClassification.from_pretrained(source, **(SAFE | init), num_labels=1)


def tokenizer_of(
    model: PreTrainedModel, role: str, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase | None:
    """The tokenizer that lies beside the weights of the `role`; None for a model without a folder.

    Raises `ValueError` where the folder has none, since nothing then says what the model reads.
    """
    source = model.config.name_or_path
    if not source:
        return None
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The {role} in {source} has no tokenizer beside it to compare with the policy's: "
            "save the one it was trained with there."
        ) from error


def check_label(model: PreTrainedModel) -> None:
    """Raise `ValueError` where a reward model does not give one score."""
    if model.config.num_labels != 1:
        raise ValueError(
            f"The reward model has {model.config.num_labels} labels; PPO needs one, the score."
        )


def check_vocabulary(
    model: PreTrainedModel, policy_tokenizer: PreTrainedTokenizerBase, role: str
) -> None:
    """Raise `ValueError` where `model`, which reads the policy's tokens, knows others."""
    tokenizer = tokenizer_of(model, role)
    if tokenizer is None or same_tokens(tokenizer, policy_tokenizer):
        return
    theirs, ours = tokenizer.get_vocab(), policy_tokenizer.get_vocab()
    differing = sum(theirs.get(token) != number for token, number in ours.items())
    raise ValueError(
        f"The tokenizers of policy ({len(ours)} tokens) and {role} ({len(theirs)} tokens) differ "
        f"in {max(differing, 1)} tokens; PPO needs a {role} of the policy's family."
    )


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether a token's number means the same to both."""
    return one.get_vocab() == other.get_vocab()


def scorer_input(
    prompts: list[Any],
    completions: list[Any],
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: dict[str, Any],
    *,
    written_with: PreTrainedTokenizerBase | None = None,
    ended: list[bool] | None = None,
) -> list[list[int]]:
    """The tokens that the reward model reads for each completion, as it read them in training.

    Messages go through its own chat template and tokenizer. Plain text is the tokens as sampled,
    EOS included; a reward model of another vocabulary than that of `written_with` reads the text
    of them, with its own EOS where the completion `ended`.
    """
    if is_conversational({"prompt": prompts[0]}):
        conversations = [
            {"messages": prompt + completion}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        texts = [
            apply_chat_template(conversation, tokenizer, **chat_template_kwargs)["text"]
            for conversation in conversations
        ]
        ids: list[list[int]] = tokenizer(text=texts, add_special_tokens=False)["input_ids"]
        return ids
    sampled = [
        prompt + completion for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
    if written_with is None or same_tokens(tokenizer, written_with):
        return sampled
    texts = written_with.batch_decode(sampled, skip_special_tokens=True)
    eos = tokenizer.eos_token or ""
    for row, whole in enumerate(ended or ()):
        texts[row] += eos if whole else ""
    return [list(ids) for ids in tokenizer(text=texts)["input_ids"]]


@torch.no_grad()
def score(
    scorer: nn.Module, sequences: list[list[int]], pad_token_id: int, batch_size: int, device: Any
) -> Tensor:
    """The score of each sequence, (B,) float32, in chunks of `batch_size`, padded to the right.

    Sequences of like length share a chunk, so that little is padding.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    scores = []
    for start in range(0, len(order), batch_size):
        chunk = [sequences[row] for row in order[start : start + batch_size]]
        width = len(chunk[0])
        ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in chunk])
        lengths = torch.tensor([len(row) for row in chunk])
        mask = (torch.arange(width) < lengths[:, None]).long()
        output = scorer(input_ids=ids.to(device), attention_mask=mask.to(device))
        scores.append(output.logits[:, 0].float())
    sorted_scores = torch.cat(scores)
    return torch.empty_like(sorted_scores).index_copy_(
        0, torch.tensor(order, device=sorted_scores.device), sorted_scores
    )
