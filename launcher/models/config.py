"""A shape as the `config.json` that it would be read from."""

from __future__ import annotations

from typing import Any

from launcher.models.families import Family, family_of
from launcher.models.read import PYTHON_ACTIVATIONS
from launcher.models.types import ModelShape


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Keys of `config.json`, `model_type` among them, from which the model can be built again and
    `read_shape` reads `shape` again (given its name and source).

    Raises UsageError where the shape does not say its family.
    """
    family = family_of(shape.family, shape.name)
    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.dense_intermediate or shape.intermediate,
        "max_position_embeddings": shape.max_positions,
    }
    config = {family.names.get(key, key): value for key, value in sizes.items()}
    config |= {"vocab_size": shape.vocab, "tie_word_embeddings": shape.tied_embeddings}
    # Some families' own padding token is past a small vocabulary, which no model can be built with.
    config["pad_token_id"] = 0
    if shape.family == "gpt_bigcode":
        config["multi_query"] = shape.kv_heads == 1
    elif family.grouped:
        config["num_key_value_heads"] = shape.kv_heads
    if family.head_dim is not None or shape.head_dim * shape.heads != shape.hidden:
        config["head_dim"] = shape.head_dim
    if family.expert_width is not None:
        config[family.expert_width] = shape.intermediate
        config[family.experts] = shape.experts
        config["num_experts_per_tok"] = shape.experts_per_token
        if family.shared_width is not None:
            config[family.shared_width] = shape.shared_intermediate
        if shape.dense_layers:
            config["mlp_only_layers"] = list(range(shape.dense_layers))
    if family.window in ("all", "flag"):
        config["sliding_window"] = shape.sliding_window
    if family.window == "flag":
        config["use_sliding_window"] = shape.sliding_window is not None
    for flag, value in (
        (family.qkv_bias, shape.qkv_bias),
        (family.mlp_bias, shape.mlp_bias),
        (family.qk_norm, shape.qk_norm),
        (family.parallel, shape.parallel),
    ):
        if isinstance(flag, str):
            config[flag] = value
    return {"model_type": shape.family, **config, **_parts(shape, family)}


def _parts(shape: ModelShape, family: Family) -> dict[str, Any]:
    """Keys of what has no size of its own, where it is not the family's way."""
    key, usual = family.activation
    found: dict[str, Any] = {}
    if (shape.activation == "gelu_new") != (usual in PYTHON_ACTIVATIONS):
        found[key] = "gelu_new" if shape.activation == "gelu_new" else "gelu"
    for part, drops in (
        (family.dropout, shape.dropout),
        (family.embedding_dropout, shape.embedding_dropout),
    ):
        if part is not None and bool(part[1]) != drops:
            found[part[0]] = 0.1 if drops else 0.0
    if family.rotary is not None and shape.rotary_part != family.rotary[1]:
        found[family.rotary[0][0]] = shape.rotary_part
    return found
