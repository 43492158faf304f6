"""What a forward and backward pass keeps: activations and logits (bytes on one GPU)."""

from __future__ import annotations

from launcher.memory.lora import ATTENTION, MLP, targets
from launcher.models.types import ModelShape
from launcher.recipe.types import Dtype, Peft


def layer(shape: ModelShape, tokens: int, dtype: Dtype, peft: Peft | None, autocast: bool) -> int:
    """Saved activations of one block without checkpointing.

    Traced on Llama and Qwen2 blocks in bfloat16 with FlashAttention-2 (residual 0), N tokens:
    full training N (16h + 4q + 4kv + 8m + 4H + 8); LoRA N (12h + 2q + 4kv + 6m + 4H + 8), plus
    8h + 6q where attention is adapted, 8h + 4m where the MLP is, and 4r for each adapted layer.
    Under autocast of float32 weights the residual stream and both norms stay float32: 4h more.
    float32 doubles what bfloat16 keeps in two bytes.
    """
    h, m = shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if peft is None:
        a_token = 16 * h + 4 * q + 4 * kv + 8 * m + (4 * h if autocast else 0)
    else:
        adapted = targets(peft)
        a_token = 12 * h + 2 * q + 4 * kv + 6 * m + 4 * peft.r * len(adapted)
        if adapted & ATTENTION:
            a_token += 8 * h + 6 * q
        if adapted & MLP:
            a_token += 8 * h + 4 * m
    if dtype == "float32":
        a_token *= 2
    return tokens * (a_token + 4 * shape.heads + 8)


def saved(
    shape: ModelShape,
    tokens: int,
    dtype: Dtype,
    peft: Peft | None,
    *,
    autocast: bool,
    checkpointing: bool,
) -> int:
    """What all blocks keep until the backward pass: with checkpointing only their inputs."""
    if checkpointing:
        width = 4 if autocast or dtype == "float32" else 2
        return shape.layers * tokens * width * shape.hidden
    return shape.layers * layer(shape, tokens, dtype, peft, autocast)


def backward_work(shape: ModelShape, tokens: int, dtype: Dtype) -> int:
    """Gradients of activations while one block is walked backwards: of its MLP, and of h."""
    return tokens * _width(dtype) * (3 * shape.intermediate + 2 * shape.hidden)


def forward_work(shape: ModelShape, tokens: int, dtype: Dtype) -> int:
    """The live tensors of one block in a forward pass without gradients."""
    return tokens * _width(dtype) * (3 * shape.intermediate + 4 * shape.hidden)


def stock_logits(shape: ModelShape, tokens: int) -> int:
    """Logits at the peak of the stock loss: 14 bytes a token and vocabulary entry (half-precision
    logits 2, float32 copy 4, log-softmax 4, gradient 4)."""
    return 14 * tokens * shape.vocab


def fused_logits(shape: ModelShape, tokens: int, trains_head: bool) -> int:
    """TRL's fused LM head on CUDA: one tile of logits, the hidden states' gradient (6 bytes an
    element), and the head's (6 bytes an element) where it trains."""
    tile = 2 * min(tokens, 4096) * min(shape.vocab, 32768)
    head = 6 * shape.vocab * shape.hidden if trains_head else 0
    return tile + 6 * tokens * shape.hidden + head


def cache(shape: ModelShape, sequences: int, tokens: int, dtype: Dtype) -> int:
    """Keys and values of `sequences` sequences of `tokens` tokens in all layers."""
    row = 2 * shape.layers * shape.kv_heads * shape.head_dim
    return sequences * tokens * row * _width(dtype)


def _width(dtype: Dtype) -> int:
    return 4 if dtype == "float32" else 2
