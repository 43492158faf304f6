"""Modules that train whole beside an adapter (`modules_to_save`): how many parameters they are.

PEFT trains a copy of each and keeps the frozen one; a layer within a copy has no adapter.
"""

from __future__ import annotations

from launcher.memory import modules
from launcher.memory.lora import layer_adapter, targets, widths
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

_ATTENTION = ("self_attn", "attn", "attention")
_ROUTED = ("mlp.gate", "mlp.experts", "mlp.shared_expert")
_QUERY_NORMS, _KEY_NORMS = ("q_norm", "q_layernorm"), ("k_norm", "k_layernorm")


def copies(peft: Peft, shape: ModelShape, *, head: bool = True) -> tuple[str, ...]:
    """Paths of the modules that are copied; what lies within one of them goes with it. `head`:
    whether there is an LM head. A score trains anyway, and is not among them."""
    if not peft.modules_to_save:
        return ()
    ends = {modules.SCORE} if head else {modules.SCORE, modules.HEAD}
    paths = {*modules.layers(shape), *modules.others(shape)} - ends
    named = {path for path in paths if path.endswith(peft.modules_to_save) and _there(path, shape)}
    return tuple(sorted(path for path in named if not named & _above(path)))


def whole_parameters(peft: Peft, shape: ModelShape, *, head: bool = True) -> int:
    """Of all copies."""
    return sum(parameters(path, shape) for path in copies(peft, shape, head=head))


def spared_parameters(peft: Peft, shape: ModelShape) -> int:
    """Of the adapters on layers that are copied whole, or within what is: there are none there."""
    if not peft.modules_to_save:
        return 0
    found, adapted, layers = 0, targets(peft, shape), widths(shape, _inner(shape))
    for path in modules.layers(shape):
        if modules.block_of(path, shape) is not None and _is_saved(path, peft):
            names = modules.usual(path, shape) & adapted & layers.keys()
            found += sum(layer_adapter(layers[name], peft) for name in names)
    return found


def parameters(path: str, shape: ModelShape) -> int:
    """Of the module at `path`, which is one of `modules.layers` or `modules.others`."""
    block, leaf = modules.block_of(path, shape), path.rpartition(".")[2]
    norm = shape.norm_parameters // shape.layer_norms
    if block is None:
        if path == modules.HEAD:
            return shape.embedding_parameters + shape.vocab * shape.head_bias
        if leaf == "wpe":
            return shape.learned_positions * shape.hidden
        return shape.embedding_parameters if path in modules.embeddings(shape) else norm
    if leaf in _ATTENTION:
        return shape.attention_parameters
    if leaf in (*_QUERY_NORMS, *_KEY_NORMS):
        heads = shape.heads if leaf in _QUERY_NORMS else shape.kv_heads
        return shape.head_dim * (heads if shape.wide_qk_norm else 1)
    dense = block < shape.dense_layers
    if leaf == "mlp":
        whole = shape.dense_layer_parameters if dense else shape.layer_parameters
        return whole - shape.attention_parameters - shape.norm_parameters
    if path.endswith(".mlp.gate"):
        return shape.experts * shape.hidden
    if path.endswith(".mlp.experts"):
        return shape.experts * _mlp(shape.intermediate, shape)
    if path.endswith(".mlp.shared_expert"):
        return _mlp(shape.shared_intermediate, shape)
    layers = widths(shape, shape.dense_intermediate if dense else _inner(shape))
    names = modules.usual(path, shape) & layers.keys()
    return sum(_layer(name, layers[name], shape) for name in names) if names else norm


def _mlp(inner: int, shape: ModelShape) -> int:
    layers = widths(shape, inner)
    names = ("gate_proj", "up_proj", "down_proj") if shape.gated_mlp else ("up_proj", "down_proj")
    return sum(_layer(name, layers[name], shape) for name in names)


def _inner(shape: ModelShape) -> int:
    return shape.shared_intermediate or shape.intermediate


def _layer(name: str, width: tuple[int, int], shape: ModelShape) -> int:
    inputs, outputs = width
    if name in ("q_proj", "k_proj", "v_proj", "qkv_proj"):
        bias = shape.qkv_bias
    else:
        bias = shape.o_bias if name == "o_proj" else shape.mlp_bias
    return inputs * outputs + outputs * (bias and name != "shared_expert_gate")


def _there(path: str, shape: ModelShape) -> bool:
    """Whether the model has a module there: of a mixture the first blocks may be dense, and an
    expert is none."""
    block = modules.block_of(path, shape)
    if block is None or not shape.experts:
        return True
    name = path.partition(f".{block}.")[2]
    if block < shape.dense_layers:
        return not name.startswith(_ROUTED)
    return not name.startswith("mlp.experts.") and name not in modules.DENSE


def _above(path: str) -> set[str]:
    """The paths of what a module lies in."""
    words = path.split(".")
    return {".".join(words[:count]) for count in range(1, len(words))}


def _is_saved(path: str, peft: Peft) -> bool:
    """Whether PEFT leaves the layer without an adapter: whole words of its path are named."""
    return any(f".{name}." in f".{path}." for name in peft.modules_to_save)
