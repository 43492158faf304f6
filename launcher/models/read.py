"""A model's shape from its parsed `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.errors import UsageError
from launcher.models.types import ModelShape

_ALWAYS_QKV_BIAS = {"qwen2"}
_QK_NORM = {"qwen3", "gemma3_text"}
_FOUR_NORMS = {"gemma2", "gemma3_text"}
_TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text", "smollm3", "cohere", "cohere2"}
"""Families whose config class ties the embeddings where `config.json` does not say."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def read_shape(
    config: Mapping[str, Any], name: str = "", source: str = "config.json"
) -> ModelShape:
    """The shape that a parsed `config.json` states.

    A block is counted as grouped-query attention with a gated MLP, which is exact for the Llama,
    Mistral, Qwen, Gemma, Phi-3 and SmolLM families and never less than the truth for a plain MLP.

    Raises UsageError for mixtures of experts, for models that are not one decoder (vision,
    encoder–decoder), and where a size is missing: nothing is guessed.
    """
    label = name or str(config.get("_name_or_path") or "the model")
    family = str(config.get("model_type", ""))
    if any(config.get(key) for key in _EXPERTS):
        raise UsageError(
            f"{label}: mixture-of-experts models ({family}) cannot be sized yet",
            hint="use a dense model of the same family",
        )
    if config.get("is_encoder_decoder") or "text_config" in config or "vision_config" in config:
        raise UsageError(
            f"{label}: {family or 'this model'} is not a decoder-only text model",
            hint="use a causal language model",
        )
    heads = _size(config, "num_attention_heads", label)
    hidden = _size(config, "hidden_size", label)
    return ModelShape(
        name=label,
        layers=_size(config, "num_hidden_layers", label),
        hidden=hidden,
        intermediate=_size(config, "intermediate_size", label),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", label, heads),
        head_dim=_size(config, "head_dim", label, max(1, hidden // heads)),
        vocab=_size(config, "vocab_size", label),
        max_positions=_size(config, "max_position_embeddings", label),
        tied_embeddings=_flag(config, "tie_word_embeddings", family in _TIED_BY_DEFAULT),
        qkv_bias=family in _ALWAYS_QKV_BIAS or _flag(config, "attention_bias", False),
        qk_norm=family in _QK_NORM,
        layer_norms=4 if family in _FOUR_NORMS else 2,
        source=source,
    )


def _size(config: Mapping[str, Any], key: str, label: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        given = "is missing" if value is None else f"is {value!r}, not a positive whole number"
        raise UsageError(
            f"{label}: `{key}` {given} in its config.json",
            hint="point to a decoder-only model saved by transformers",
        )
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    return default if value is None else bool(value)
