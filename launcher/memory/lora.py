"""Adapters: how many parameters they train, and which linear layers they sit on."""

from __future__ import annotations

from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

_JOINT = ("phi3", "gpt_bigcode")
"""Families whose blocks project queries, keys and values at once, and gate and up, if they have a
gate."""


def joint(shape: ModelShape) -> bool:
    """Whether a block has `qkv_proj` (and `gate_up_proj`) in place of several layers."""
    return shape.family in _JOINT


def linear_layers(shape: ModelShape) -> frozenset[str]:
    """The linear layers of a block, by the names that most families give them."""
    if joint(shape):
        up = "gate_up_proj" if shape.gated_mlp else "up_proj"
        return frozenset({"qkv_proj", "o_proj", up, "down_proj"})
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    if shape.experts and not shape.shared_intermediate:
        # Experts are one parameter each, not layers.
        return frozenset(attention)
    return frozenset(
        attention | {"up_proj", "down_proj"} | ({"gate_proj"} if shape.gated_mlp else set())
    )


def targets(peft: Peft, shape: ModelShape) -> frozenset[str]:
    """The adapted layers of a block. A pattern or `all-linear` counts as all of them."""
    every = linear_layers(shape)
    if isinstance(peft.targets, str):
        return every & {peft.targets} or every
    return every & {name.rsplit(".", 1)[-1] for name in peft.targets}


def sizes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Linear layer of a block → (inputs, outputs)."""
    hidden, inner = shape.hidden, shape.shared_intermediate or shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    every = {
        "q_proj": (hidden, q),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (q, hidden),
        "qkv_proj": (hidden, q + 2 * kv),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
        "gate_up_proj": (hidden, 2 * inner),
    }
    return {name: every[name] for name in linear_layers(shape)}


def adapter_parameters(peft: Peft, shape: ModelShape) -> int:
    """r × (inputs + outputs) for each adapted layer; with DoRA another output."""
    layers = sizes(shape)
    each = sum(
        peft.r * sum(layers[name]) + (layers[name][1] if peft.dora else 0)
        for name in targets(peft, shape)
    )
    return shape.layers * each


def whole_parameters(peft: Peft, shape: ModelShape) -> int:
    """Of the modules that train whole beside the adapters: copies of embedding and head."""
    names = [name for name in peft.modules_to_save if name in ("embed_tokens", "lm_head")]
    return len(names) * shape.embedding_parameters
