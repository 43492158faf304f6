"""Models without weights, from their configs, as the worker loads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from launcher.memory.stack import Stack
from launcher.worker import models
from launcher.worker.trace import attention
from launcher.worker.trace.request import Request

WORD = "a"
"""One token of `tokenizer`."""
_PAD = 0
"""The padding token's number; the traced rows have none."""


class Builder:
    """Builds the models of one request on the `meta` device.

    Precisions are those of `launcher.worker.models`, or of the request's stack.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._stack: Stack | None = request.stack

    @property
    def trained(self) -> torch.dtype:
        """Storage of what trains, or of an adapter's base."""
        if self._stack is not None:
            return getattr(torch, self._stack.weights)
        return models.trained_dtype(self._request.stage, deepspeed=False)

    @property
    def frozen(self) -> torch.dtype:
        """Storage of models that only read."""
        return getattr(torch, self._request.stage.dtype)

    @property
    def value(self) -> torch.dtype:
        """Storage of a value model, which trains whole, whatever the policy does."""
        return torch.float32 if self._stack is None else getattr(torch, self._stack.weights)

    def causal(self, role: str, dtype: torch.dtype) -> Any:
        """A causal language model of the role's config."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                self._config(role), dtype=dtype, attn_implementation=self._attention
            )

    def classifier(self, role: str, dtype: torch.dtype) -> Any:
        """A sequence classifier with one label on the trunk of the role's config."""
        from transformers import AutoModelForSequenceClassification

        config = self._config(role)
        config.num_labels = 1
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(
                config, dtype=dtype, attn_implementation=self._attention
            )

    def new_reward_model(self, role: str) -> Any:
        """As `launcher.worker.models.new_reward_model`: its head trains in float32.

        Unless the stack has all that trains in half precision.
        """
        model = self.classifier(role, self.trained)
        half = self._stack is not None and self._stack.weights != "float32"
        if self._request.stage.peft is not None or not half:
            model.score.float()
        return model

    @property
    def _attention(self) -> str:
        eager = self._stack is not None and self._stack.attention == "eager"
        chosen: Mapping[str, Any] = self._request.stage.train.get("model_init_kwargs") or {}
        eager = eager or chosen.get("attn_implementation") == "eager"
        return "eager" if eager else attention.NAME

    def _config(self, role: str) -> Any:
        from transformers import AutoConfig

        fields = dict(self._request.config(role))
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        config.pad_token_id = _PAD
        return config


def tokenizer() -> Any:
    """A tokenizer of four words: rows are traced by their lengths."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": _PAD, "<eos>": 1, WORD: 2, "<unk>": 3}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
