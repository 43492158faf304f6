"""What each family of decoders has in a block, by the `model_type` of its `config.json`.

Defaults are those of the config classes of transformers 5.23, which fill in what a file leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from launcher.errors import UsageError

Given = bool | str
"""Whether a part is there: always, never, or as the flag of this name in `config.json` says."""


@dataclass(frozen=True)
class Family:
    """Most are Llama's block with some difference; the defaults are Llama's."""

    norm: Literal["rms", "layer", "python layer"] = "rms"
    post_norms: bool = False
    norm_bias: bool = False
    layer_norms: int = 2
    joined_norm: str | None = None
    """The flag that leaves one norm out: MLP and attention then read the same input."""
    gated_mlp: bool = True
    qkv_bias: Given = False
    o_bias: Given = False
    mlp_bias: Given = False
    head_bias: bool = False
    qk_norm: Given = False
    wide_qk_norm: bool = False
    """Whether those norms have a weight for each head, instead of one that heads share."""
    parallel: Given = False
    learned_positions: bool = False
    tied: bool = False
    grouped: bool = True
    """Whether the file may give keys and values fewer heads than queries."""
    kv_heads: int | None = None
    """Where the file does not say; None: as many as heads."""
    head_dim: int | None = None
    """Where the file does not say; None: hidden / heads."""
    window: Literal["none", "all", "flag", "some"] = "none"
    """Blocks that attend to a window: none, all (where the file gives one), all if
    `use_sliding_window`, or some of them, which leaves whole sequences in the others."""
    window_tokens: int | None = None
    """Where the file does not say."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Keys that files of this family may give another name."""
    expert_width: str | None = None
    """The key of a routed expert's width; None: the family is dense."""
    experts: str = "num_experts"
    """The key of their number."""
    shared_width: str | None = None
    """The key of the shared expert's width."""
    activation: tuple[str, str] = ("hidden_act", "silu")
    """The key of the MLP's function, and which it is where the file does not say."""
    dropout: tuple[str, float] | None = None
    """The key of the share of what attention and MLP give that training drops, and that share where
    the file does not say; None: nothing is dropped."""
    embedding_dropout: tuple[str, float] | None = None
    rotary: tuple[tuple[str, ...], float] | None = None
    """Keys of the part of each head that positions turn, and that part where the file does not say;
    None: all of it."""
    flags: Mapping[str, bool] = field(default_factory=dict)
    """Default of each flag that is true where the file does not say."""


_BIASED = Family(qkv_bias="attention_bias", o_bias="attention_bias")
_GEMMA = replace(_BIASED, tied=True, head_dim=256)
_GPT2 = Family(
    norm="layer",
    norm_bias=True,
    gated_mlp=False,
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    learned_positions=True,
    tied=True,
    grouped=False,
    activation=("activation_function", "gelu_new"),
    dropout=("resid_pdrop", 0.1),
    embedding_dropout=("embd_pdrop", 0.1),
    names={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
    },
)

FAMILIES: dict[str, Family] = {
    "llama": replace(_BIASED, mlp_bias="mlp_bias"),
    "mistral": Family(kv_heads=8, window="all", window_tokens=4096),
    "mixtral": Family(
        kv_heads=8, window="all", expert_width="intermediate_size", experts="num_local_experts"
    ),
    "qwen2": Family(qkv_bias=True, kv_heads=32),
    "qwen2_moe": Family(
        qkv_bias="qkv_bias",
        kv_heads=16,
        expert_width="moe_intermediate_size",
        shared_width="shared_expert_intermediate_size",
        flags={"qkv_bias": True},
    ),
    "qwen3": replace(_BIASED, qk_norm=True, kv_heads=32, head_dim=128),
    "qwen3_moe": replace(
        _BIASED,
        qk_norm=True,
        kv_heads=4,
        window="flag",
        window_tokens=4096,
        expert_width="moe_intermediate_size",
        names={"num_experts": "num_local_experts"},
    ),
    "gemma": replace(_GEMMA, kv_heads=16),
    "gemma2": replace(_GEMMA, layer_norms=4, kv_heads=4, window="some"),
    "gemma3_text": replace(_GEMMA, layer_norms=4, qk_norm=True, kv_heads=4, window="some"),
    "phi": Family(
        norm="layer",
        norm_bias=True,
        layer_norms=1,
        gated_mlp=False,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        head_bias=True,
        parallel=True,
        activation=("hidden_act", "gelu_new"),
        dropout=("resid_pdrop", 0.0),
        embedding_dropout=("embd_pdrop", 0.0),
        rotary=(("partial_rotary_factor",), 0.5),
    ),
    "phi3": Family(
        window="all", dropout=("resid_pdrop", 0.0), rotary=(("partial_rotary_factor",), 1.0)
    ),
    "smollm3": replace(_BIASED, mlp_bias="mlp_bias", tied=True, kv_heads=4, window="some"),
    "gpt_neox": replace(
        _BIASED,
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        mlp_bias=True,
        parallel="use_parallel_residual",
        grouped=False,
        activation=("hidden_act", "gelu"),
        dropout=("hidden_dropout", 0.0),
        embedding_dropout=("hidden_dropout", 0.0),
        rotary=(("partial_rotary_factor", "rotary_pct"), 0.25),
        flags={"attention_bias": True, "use_parallel_residual": True},
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(
        _GPT2,
        activation=("activation_function", "gelu_pytorch_tanh"),
        flags={"multi_query": True},
    ),
    "starcoder2": Family(
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
        tied=True,
        kv_heads=2,
        window="all",
        activation=("hidden_act", "gelu_pytorch_tanh"),
        dropout=("residual_dropout", 0.0),
        embedding_dropout=("embedding_dropout", 0.0),
        flags={"use_bias": True},
    ),
    "olmo2": replace(_BIASED, qk_norm=True, wide_qk_norm=True, post_norms=True),
    "granite": replace(_BIASED, mlp_bias="mlp_bias"),
    "cohere": replace(
        _BIASED,
        norm="python layer",
        layer_norms=1,
        qk_norm="use_qk_norm",
        wide_qk_norm=True,
        parallel=True,
        tied=True,
    ),
    "cohere2": replace(
        _BIASED, norm="python layer", layer_norms=1, parallel=True, tied=True, window="some"
    ),
    "stablelm": Family(
        norm="layer",
        norm_bias=True,
        kv_heads=32,
        qkv_bias="use_qkv_bias",
        qk_norm="qk_layernorm",
        wide_qk_norm=True,
        parallel="use_parallel_residual",
        joined_norm="use_parallel_residual",
        dropout=("hidden_dropout", 0.0),
        rotary=(("partial_rotary_factor",), 0.25),
    ),
}

_REFUSED = {
    "deepseek_v2": "its latent attention keeps other tensors than are counted here",
    "deepseek_v3": "its latent attention keeps other tensors than are counted here",
    "gpt_oss": "its experts have a packed format and biases of their own",
    "mamba": "it has no attention",
}
WAY_OUT = "choose a model of another family, or state its sizes under the recipe's `shapes:`"


def family_of(name: str, label: str) -> Family:
    """The family whose `model_type` is `name`. Raises UsageError, with `label`, for others."""
    if not name:
        raise UsageError(
            f"{label}: `model_type` is missing in its config.json",
            hint="point to a decoder-only model saved by transformers",
        )
    family = FAMILIES.get(name)
    if family is None:
        why = _REFUSED.get(name, "what its blocks hold is not known here")
        raise UsageError(f"{label}: models of type `{name}` cannot be sized: {why}", hint=WAY_OUT)
    return family
