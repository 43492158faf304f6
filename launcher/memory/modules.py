"""The modules of a family's models by their paths, as adapters name them.

Paths are those of transformers 5.23; a mixture's experts, which are no modules there, are known by
the names that PEFT takes for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.models.types import ModelShape

HEAD, SCORE = "lm_head", "score"

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
DENSE = _GATED
"""The layers of a dense MLP in a mixture's first blocks."""
_SHARED = tuple(path.replace("mlp.", "mlp.shared_expert.") for path in _GATED)
_NORMS = ("input_layernorm", "post_attention_layernorm")
_FEEDFORWARD_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True)
class _Modules:
    """Most are Llama's; the defaults are Llama's."""

    linear: tuple[str, ...] = (*_ATTENTION, *_GATED)
    """Of a block."""
    others: tuple[str, ...] = ("self_attn", "mlp", *_NORMS)
    """Of a block: what trains whole or not at all."""
    blocks: str = "model.layers"
    embeddings: tuple[str, ...] = ("model.embed_tokens",)
    last_norm: str = "model.norm"


_LLAMA = _Modules()
_QK = replace(_LLAMA, others=(*_LLAMA.others, *_QK_NORMS))
_GPT2 = _Modules(
    linear=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    others=("attn", "mlp", "ln_1", "ln_2"),
    blocks="transformer.h",
    embeddings=("transformer.wte", "transformer.wpe"),
    last_norm="transformer.ln_f",
)

_FAMILIES: Mapping[str, _Modules] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "gemma", "smollm3", "granite"), _LLAMA),
    "qwen3": _QK,
    "mixtral": replace(
        _LLAMA,
        linear=(*_ATTENTION, "mlp.gate", *(f"mlp.experts.{name}" for name in ("w1", "w2", "w3"))),
        others=(*_LLAMA.others, "mlp.experts"),
    ),
    "qwen2_moe": replace(
        _LLAMA,
        linear=(*_ATTENTION, *_SHARED, "mlp.shared_expert_gate"),
        others=(*_LLAMA.others, "mlp.gate", "mlp.experts", "mlp.shared_expert"),
    ),
    "qwen3_moe": replace(
        _QK,
        linear=(
            *_ATTENTION,
            "mlp.gate",
            *(path.replace("mlp.", "mlp.experts.") for path in _GATED),
        ),
        others=(*_QK.others, "mlp.experts"),
    ),
    "gemma2": replace(_LLAMA, others=(*_LLAMA.others, *_FEEDFORWARD_NORMS)),
    "gemma3_text": replace(_QK, others=(*_QK.others, *_FEEDFORWARD_NORMS)),
    "phi": replace(
        _LLAMA,
        linear=(*_ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2"),
        others=("self_attn", "mlp", "input_layernorm"),
        last_norm="model.final_layernorm",
    ),
    "phi3": replace(
        _LLAMA,
        linear=("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    ),
    "gpt_neox": _Modules(
        linear=(
            "attention.query_key_value",
            "attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ),
        others=("attention", "mlp", *_NORMS),
        blocks="gpt_neox.layers",
        embeddings=("gpt_neox.embed_in",),
        last_norm="gpt_neox.final_layer_norm",
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "starcoder2": replace(_LLAMA, linear=(*_ATTENTION, "mlp.c_fc", "mlp.c_proj")),
    "olmo2": replace(
        _QK, others=("self_attn", "mlp", *_QK_NORMS, _NORMS[1], _FEEDFORWARD_NORMS[1])
    ),
    "cohere": replace(_QK, others=("self_attn", "mlp", *_QK_NORMS, "input_layernorm")),
    "cohere2": replace(_LLAMA, others=("self_attn", "mlp", "input_layernorm")),
    "stablelm": replace(
        _LLAMA, others=(*_LLAMA.others, "self_attn.q_layernorm", "self_attn.k_layernorm")
    ),
}

_USUAL: Mapping[str, str] = {
    "self_attn.dense": "o_proj",
    "mlp.fc1": "up_proj",
    "mlp.fc2": "down_proj",
    "attention.query_key_value": "qkv_proj",
    "attention.dense": "o_proj",
    "mlp.dense_h_to_4h": "up_proj",
    "mlp.dense_4h_to_h": "down_proj",
    "attn.c_attn": "qkv_proj",
    "attn.c_proj": "o_proj",
    "mlp.c_fc": "up_proj",
    "mlp.c_proj": "down_proj",
}
"""Layers that only some families call so → the name that most give them."""


def known(shape: ModelShape) -> bool:
    """Whether the modules of the model are known: its own files, or the table, say its family. A
    recipe's `shapes` say sizes alone."""
    return shape.family in _FAMILIES and shape.source != "recipe"


def layers(shape: ModelShape) -> tuple[str, ...]:
    """The paths of all linear layers and embeddings of a model that is `known`: what an adapter
    may sit on. A language model has the head, a reward model the score."""
    of = _of(shape)
    return (*of.embeddings, *_each(shape, _linear(shape)), HEAD, SCORE)


def others(shape: ModelShape) -> tuple[str, ...]:
    """The paths of its other modules that have parameters."""
    of = _of(shape)
    return (*_each(shape, of.others), of.last_norm)


def embeddings(shape: ModelShape) -> tuple[str, ...]:
    """The paths of its embeddings, that of the tokens first."""
    return _of(shape).embeddings


def block_of(path: str, shape: ModelShape) -> int | None:
    """The number of the block that the module at `path` lies in; None: in none."""
    before, blocks, within = path.partition(f"{_of(shape).blocks}.")
    return int(within.partition(".")[0]) if blocks and not before else None


def named(path: str, name: str) -> bool:
    """Whether PEFT takes `name`, in a list of targets, for the module at `path`."""
    return path == name or path.endswith(f".{name}")


def usual(name: str, shape: ModelShape) -> frozenset[str]:
    """The layers of a block that a target `name` means, by the names that most families give them:
    its own last word, and those that this family calls so."""
    block = next((word for word in name.split(".") if word.isdigit()), "0")
    before = f"{_of(shape).blocks}.{block}."
    paths = (path for path in _USUAL if path in _linear(shape) and named(before + path, name))
    return frozenset({_leaf(name), *(_USUAL[path] for path in paths)})


def _of(shape: ModelShape) -> _Modules:
    return _FAMILIES.get(shape.family, _LLAMA)


def _linear(shape: ModelShape) -> tuple[str, ...]:
    return (*_of(shape).linear, *(_GATED if shape.dense_layers else ()))


def _each(shape: ModelShape, paths: tuple[str, ...]) -> tuple[str, ...]:
    """The paths in every block."""
    blocks = _of(shape).blocks
    return tuple(f"{blocks}.{block}.{path}" for block in range(shape.layers) for path in paths)


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
