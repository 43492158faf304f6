"""Adapters: how many parameters they train, and which parts of a block they sit on."""

from __future__ import annotations

from launcher.memory import modules
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

_JOINT = ("phi3", "gpt_bigcode", "gpt2", "gpt_neox")
"""Families whose blocks project queries, keys and values at once, and gate and up, if they have a
gate."""


ROUTER, EXPERTS_UP, EXPERTS_DOWN = "router", "experts.gate_up_proj", "experts.down_proj"
"""What a mixture of experts keeps as parameters, which are not layers: the stacked matrices of all
experts among them."""
_PARAMETERS = {
    "mixtral": {"gate": ROUTER, "w1": EXPERTS_UP, "w3": EXPERTS_UP, "w2": EXPERTS_DOWN},
    "qwen3_moe": {
        "gate": ROUTER,
        "gate_proj": EXPERTS_UP,
        "up_proj": EXPERTS_UP,
        "down_proj": EXPERTS_DOWN,
    },
}
"""Family → the layers of its experts in transformers 4, and the parameters that hold them now. PEFT
puts adapters on these wherever those are meant (`_convert_peft_config_moe`); not for Qwen 1.5's and
2's mixtures, whose type has no row in its table."""
_FUSED_RANK = 2
"""Ranks of an adapter on gate and up together: one for each of them (PEFT's `rank_pattern`)."""


def fused(shape: ModelShape) -> tuple[str, ...]:
    """The layers of an expert whose matrices are one parameter, by the names that PEFT takes for
    them: it adapts all of them or none."""
    return tuple(
        name for name, held in _PARAMETERS.get(shape.family, {}).items() if held == EXPERTS_UP
    )


def joint(shape: ModelShape) -> bool:
    """Whether a block has `qkv_proj` (and `gate_up_proj`) in place of several layers."""
    return shape.family in _JOINT


def linear_layers(shape: ModelShape) -> frozenset[str]:
    """The linear layers of a block, by the names that most families give them.

    Experts are one parameter each, not layers, and so is their router.
    """
    if joint(shape):
        up = "gate_up_proj" if shape.gated_mlp else "up_proj"
        return frozenset({"qkv_proj", "o_proj", up, "down_proj"})
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    if shape.experts and not shape.shared_intermediate:
        return frozenset(attention)
    mlp = {"up_proj", "down_proj"} | ({"gate_proj"} if shape.gated_mlp else set())
    return frozenset(attention | mlp | ({"shared_expert_gate"} if shape.experts else set()))


def targets(peft: Peft, shape: ModelShape) -> frozenset[str]:
    """What of a block is adapted. A pattern or `all-linear` counts as all of it."""
    layers, parameters = linear_layers(shape), _PARAMETERS.get(shape.family, {})
    every = layers | set(parameters.values())
    if isinstance(peft.targets, str):
        return every & {peft.targets} or every
    named = {layer for name in peft.targets for layer in modules.usual(name, shape)}
    return every & {parameters.get(name, name) for name in named}


def sizes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Linear layer of a block → (inputs, outputs)."""
    every = widths(shape, shape.shared_intermediate or shape.intermediate)
    return {name: every[name] for name in linear_layers(shape)}


def widths(shape: ModelShape, inner: int) -> dict[str, tuple[int, int]]:
    """Linear layer that a block may have → (inputs, outputs), with an MLP `inner` wide."""
    hidden = shape.hidden
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "q_proj": (hidden, q),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (q, hidden),
        "qkv_proj": (hidden, q + 2 * kv),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
        "gate_up_proj": (hidden, 2 * inner),
        "shared_expert_gate": (hidden, 1),
    }


def adapter_parameters(peft: Peft, shape: ModelShape) -> int:
    """r × (inputs + outputs) for each adapted layer; with DoRA another output. On stacked matrices
    an adapter has such a pair for each expert."""
    layers = sizes(shape)
    each = sum(
        _on_parameter(name, peft, shape)
        if name not in layers
        else layer_adapter(layers[name], peft)
        for name in targets(peft, shape)
    )
    return shape.layers * each


def layer_adapter(width: tuple[int, int], peft: Peft) -> int:
    """Parameters of the adapter on a layer of (inputs, outputs)."""
    return peft.r * sum(width) + (width[1] if peft.dora else 0)


def parameter_rank(name: str, peft: Peft) -> int:
    """The rank of the adapter on one of a mixture's parameters."""
    return _FUSED_RANK * peft.r if name == EXPERTS_UP else peft.r


def _on_parameter(name: str, peft: Peft, shape: ModelShape) -> int:
    rank, hidden, inner = parameter_rank(name, peft), shape.hidden, shape.intermediate
    if name == ROUTER:
        return rank * (hidden + shape.experts)
    return rank * shape.experts * (hidden + (2 * inner if name == EXPERTS_UP else inner))
