"""The peaks of a model's passes: forward and backward where it trains, forward where it reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from launcher.memory.block import Kind
from launcher.memory.head import Output, head, reading_head
from launcher.memory.stack import width
from launcher.memory.tape import Live
from launcher.memory.walk import Items, bytes_of, profile, reading, router_logits

SMALL_EMBEDDING = 3072
"""Tokens up to which the embedding's gradient needs no sums on the way."""


@dataclass(frozen=True)
class Batch:
    """What goes through a model at once."""

    sequences: int
    length: int
    """Tokens of each sequence."""
    scored: int
    """Tokens of each that the head scores."""

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


# A search asks for the same pass again and again: other ZeRO stages, other numbers of processes.
@lru_cache(maxsize=1024)
def training(
    kind: Kind,
    output: Output,
    batch: Batch,
    *,
    checkpointing: bool,
    keeps_gradients: bool,
    shards: float | None = None,
) -> tuple[Items, Items]:
    """(the end of the forward pass, the peak of the backward pass) in bytes, over what is there
    before a step. `keeps_gradients`: gradients are not there yet, and appear as they are made; to
    FSDP a block gives its gradients away when it has been walked, for `shards` of all."""
    layers, tokens, length = kind.shape.layers, batch.tokens, batch.length
    options = {"checkpointing": checkpointing, "keeps_gradients": keeps_gradients}
    block = profile(kind, **options)
    # Where gradients flow on to the embedding the lowest block is like the others.
    alike = kind.embedding or checkpointing
    first = block if alike else profile(kind, **options, first=True)
    scored = batch.sequences * batch.scored
    end = head(kind, output, scored, tokens, keeps_gradients=keeps_gradients)

    def size(live: Live, times: int = 1) -> Items:
        return {name: each * times for name, each in bytes_of(live, tokens, length).items()}

    fixed = {"activations": _positions(kind, batch)} | _pieces(kind, output, scored)
    fixed["activations"] += _embedding_mask(kind, tokens, checkpointing)
    bottom = size(first.kept)
    left, above = size(end.gradients), size(block.gradients, layers - 1)
    if shards is not None:
        left, above = {}, {"gradients": shards}
    elif not keeps_gradients and output != "score":
        left = _waiting(kind)
    flat = _flat(kind, output)
    left = merge((left, flat))
    whole = merge((fixed, bottom, size(block.kept, layers - 1)))
    # The last block's own kept memory is among its moments; of a model of one it is the first's.
    below = merge((fixed, bottom, size(block.kept, layers - 2))) if layers > 1 else fixed
    inner, lowest = (each.backward.highest(tokens, length) for each in (block, first))
    loss = _largest(
        (
            (
                whole,
                _balance(kind, tokens),
                size(block.cached, layers),
                end.forward.highest(tokens, length),
            ),
            (
                below,
                _embedded(kind, tokens, checkpointing),
                size(block.cached, layers - 1),
                block.forward.highest(tokens, length),
            ),
        )
    )
    backward = _largest(
        (
            (whole, end.backward.highest(tokens, length)),
            (below, left, inner),
            (fixed, left, above, lowest),
            (left, flat, above, size(block.gradients), _embedding(kind, tokens, keeps_gradients)),
            *(
                [_held_by_fsdp(kind, batch, whole, lowest)]
                if shards is not None and checkpointing
                else []
            ),
        )
    )
    return loss, backward


def _held_by_fsdp(kind: Kind, batch: Batch, whole: Items, lowest: Items) -> tuple[Items, ...]:
    """FSDP's hooks on the inputs of blocks with frozen parameters hold them, and under reentrant
    checkpointing their gradients too, until the backward pass has ended (`_runtime_utils.py`,
    `_register_post_backward_reshard_only_hook`)."""
    if kind.full or not kind.stack.reentrant:
        return (whole,)
    stream = float(batch.tokens * kind.shape.hidden * kind.stack.stream)
    # The lowest block's input and the gradient of its output are among its moments, too.
    return whole, {"activations": max(0, kind.shape.layers - 3) * stream}, lowest


def kept(kind: Kind, batch: Batch, *, checkpointing: bool) -> Items:
    """What the blocks keep for the backward pass."""
    block = profile(kind, checkpointing=checkpointing, keeps_gradients=True)
    sizes = bytes_of(block.kept, batch.tokens, batch.length)
    return {name: each * kind.shape.layers for name, each in sizes.items()}


@lru_cache(maxsize=1024)
def read(kind: Kind, output: Output, batch: Batch) -> Items:
    """The peak of a forward pass that nothing follows."""
    tokens, length = batch.tokens, batch.length
    scored = batch.sequences * batch.scored
    fixed = {"activations": _positions(kind, batch)}
    copies, end = autocast_copies(kind), reading_head(kind, output, scored, tokens)
    return _largest(
        (
            (fixed, copies, through(kind, tokens, length)),
            (fixed, copies, end.highest(tokens, length)),
        )
    )


def through(kind: Kind, tokens: int, length: int) -> Items:
    """The peak of one block of a forward pass, beside the copies that autocast keeps."""
    cached, moments = reading(kind)
    found = dict(moments.highest(tokens, length))
    for name, each in bytes_of(cached, tokens, length).items():
        found[name] = found.get(name, 0.0) - each
    return found


def autocast_copies(kind: Kind) -> Items:
    """What autocast keeps of the blocks' trained weights until a forward pass ends."""
    cached, _ = reading(kind)
    return {name: each * kind.shape.layers for name, each in bytes_of(cached, 0, 0).items()}


def total(items: Items) -> float:
    return sum(items.values())


def merge(parts: Iterable[Items]) -> Items:
    """Items of the same name are added."""
    found: Items = {}
    for part in parts:
        for name, size in part.items():
            found[name] = found.get(name, 0.0) + size
    return found


def _largest(candidates: Iterable[tuple[Items, ...]]) -> Items:
    return max((merge(parts) for parts in candidates), key=total)


def _embedding(kind: Kind, tokens: int, keeps_gradients: bool) -> Items:
    """The last step backwards: the gradient of the embedding, dense. Tied to the head's it is added
    to that; so it is, too, where gradients of an earlier micro-batch are there.

    CUDA sums it in float32 for ten tokens at a time and then for each word (Embedding.cu), unless
    there are few tokens.
    """
    if not kind.embedding:
        return {}
    shape, size = kind.shape, width(kind.stack.weights)
    dense = float(shape.embedding_parameters * size)
    kept = keeps_gradients and not (kind.full and shape.tied_embeddings)
    work = float(tokens * shape.hidden * kind.stack.stream)
    if tokens > SMALL_EMBEDDING:
        work += 4 * shape.hidden * (tokens // 10 + min(tokens, shape.vocab))
    return {"gradients": dense, "activations": work} if kept else {"activations": work + dense}


def _waiting(kind: Kind) -> Items:
    """A tied head's gradient waits for the embedding's before both are added to earlier ones."""
    if not (kind.full and kind.shape.tied_embeddings):
        return {}
    return {"gradients": float(kind.shape.embedding_parameters * width(kind.stack.weights))}


def _pieces(kind: Kind, output: Output, scored: int) -> Items:
    """A list of pieces of the logits is a variable of the loop over batches: it lives until the
    next ones are there."""
    if kind.stack.loss != "pieces" or output == "score":
        return {}
    return {"logits": float(scored * kind.shape.vocab * width(kind.stack.compute))}


def _flat(kind: Kind, output: Output) -> Items:
    """Embedding and head are one flat parameter to FSDP: the head's gradient waits for the
    embedding's, and at the end both are laid into one tensor of twice that size."""
    if not (kind.full and kind.stack.sharding == "fsdp") or output == "score":
        return {}
    return {"gradients": float(kind.shape.embedding_parameters * width(kind.stack.compute))}


def _embedding_mask(kind: Kind, tokens: int, checkpointing: bool) -> float:
    """Of the embedding's dropout, where its gradient is wanted."""
    wanted = kind.embedding or checkpointing
    return float(tokens * kind.shape.hidden) if kind.shape.embedding_dropout and wanted else 0.0


def _balance(kind: Kind, tokens: int) -> Items:
    """What the experts' balance keeps of all blocks at the end of a forward pass: the chances of
    the router logits again, which autocast makes in float32 (`load_balancing_loss_func`)."""
    factor = 2 if kind.stack.autocast and kind.stack.compute != "float32" else 1
    found = bytes_of(router_logits(kind), tokens, 0)
    return {name: kind.shape.layers * factor * each for name, each in found.items()}


def _embedded(kind: Kind, tokens: int, checkpointing: bool) -> Items:
    """The embedding's output is a variable of the model's forward, whether or not the first block
    keeps it (it keeps a float32 copy instead, of what is narrower)."""
    if checkpointing or kind.stack.stream == width("float32"):
        return {}
    return {"activations": float(tokens * kind.shape.hidden * kind.stack.stream)}


def _positions(kind: Kind, batch: Batch) -> float:
    """Ids, labels and mask of the batch (8 bytes each), the rotary cos and sin, and the mask of
    every pair of tokens (a byte each), where attention is given one."""
    pairs = batch.tokens * batch.length if kind.stack.masked else 0
    return pairs + 24 * batch.tokens + 2 * batch.length * kind.shape.head_dim * kind.stack.stream
