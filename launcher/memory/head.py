"""The end of a model: last norm, head and loss, on a tape."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from launcher.memory import operations as op
from launcher.memory.block import Block, Kind
from launcher.memory.stack import Stack
from launcher.memory.tape import ZERO, Form, Tape, Tensor, Weight, constant, per_token, times
from launcher.memory.walk import Moments, Profile, entering, tape_of

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""TRL's fused head multiplies this many tokens by this many rows of the head at a time
(`TOKEN_CHUNK_SIZE` and `_CHUNKED_LOGPROB_CHUNK_SIZE`)."""

Output = Literal["loss", "log-probabilities", "score"]


def head(kind: Kind, output: Output, scored: int, tokens: int, *, keeps_gradients: bool) -> Profile:
    """What the end of the model takes where it trains. `scored` of its `tokens` go to the head."""
    share, tile = scored / tokens, _tile(kind, output, scored, tokens)
    return _head(kind, output, tile, share, True, keeps_gradients)


def reading_head(kind: Kind, output: Output, scored: int, tokens: int) -> Moments:
    """Moments of the end of a model that only reads."""
    share, tile = scored / tokens, _tile(kind, output, scored, tokens)
    return _head(kind, output, tile, share, False, False).forward


def _tile(kind: Kind, output: Output, scored: int, tokens: int) -> Form:
    """Tokens of a tile of the fused head: all that are scored, up to a limit."""
    if output == "score" or kind.stack.loss not in ("fused head", "tiled"):
        return ZERO
    return per_token(scored / tokens) if scored < TILE_TOKENS else constant(TILE_TOKENS)


@lru_cache(maxsize=1024)
def _head(
    kind: Kind, output: Output, tile: Form, share: float, records: bool, keeps_gradients: bool
) -> Profile:
    tape = tape_of(kind, records=records, keeps_gradients=keeps_gradients)
    block, shape = Block(tape, kind), kind.shape
    hidden = block.norm(entering(tape, kind))
    tape.kind = "logits"
    if output == "score":
        root = op.linear(tape, hidden, Weight(tape, 1, shape.hidden, hidden.width, kind.trains))
    elif kind.stack.loss == "sliced":
        root = _sliced(tape, hidden, block.head(), share)
    else:
        weight = block.head()
        chosen = _window(tape, hidden, share)
        if kind.stack.loss in ("fused head", "tiled"):
            root = _fused(tape, chosen, weight, tile, triton=kind.stack.loss == "fused head")
        elif kind.stack.loss == "liger":
            root = _liger(tape, chosen, weight)
        else:
            root = _stock(tape, chosen, weight, kind.stack)
        del chosen
    del hidden
    forward, tape.moments = tape.moments, []
    copies = {name: form for name, form in tape.live.items() if name == "autocast copies"}
    tape.end_autocast()
    if records:
        gradient = tape.new(root.elements, root.width)
        bare = Tensor(root.elements, root.width, None, root.node)
        del root
        tape.backward(bare, gradient)
        del gradient
    left = {name: form for name, form in tape.live.items() if name == "gradients"}
    return Profile({}, copies, Moments(forward), Moments(tape.moments), left)


def _sliced(tape: Tape, hidden: Tensor, weight: Weight, share: float) -> Tensor:
    """Logits of all positions, which come out of autocast in float32, and the log-softmax of those
    that are scored."""
    rows = times(hidden.elements, share / weight.columns)
    logits = op.linear(tape, hidden, weight)
    wide = tape.cast(logits, op.FULL) if tape.autocast is not None else logits
    del logits
    chosen = _window(tape, wide, share)
    part, size = chosen.elements, wide.width
    chances = tape.new(part, size)
    tape.make((chosen,), chances, (chances,), lambda g: [tape.new(part, size)])
    taken = tape.new(rows, size)
    return tape.make((chances,), taken, (), lambda g: [tape.new(part, size)])


def _window(tape: Tape, hidden: Tensor, share: float) -> Tensor:
    """A view of some positions, whose gradient is laid into zeros of all."""
    elements, width = hidden.elements, hidden.width
    view = Tensor(times(elements, share), width, hidden.storage)
    return tape.make((hidden,), view, (), lambda g: [tape.new(elements, width)])


def _fused(tape: Tape, hidden: Tensor, weight: Weight, tile: Form, *, triton: bool) -> Tensor:
    """TRL's head: no logits, but tiles of them, made twice.

    With Triton the labelled positions are copied, and a tile is worked on in place; without it the
    tile is unfolded in float32. Backwards the gradients of the hidden states and, where it trains,
    of the head are summed in float32, then cast to their own width.
    """
    compute = tape.autocast or hidden.width
    own, elements = hidden.width, hidden.elements
    rows, columns, row_width = weight.rows, weight.columns, weight.width
    whole, trains = weight.elements, weight.node is not None
    area = times(tile, TILE_VOCABULARY)

    def work(unfolded: int, held: int) -> list[Tensor]:
        """The tile, and the parts of both factors in the width of the product, of which the last
        one is `held` while the next is made."""
        found = [tape.new(area, compute)]
        if own != compute:
            found.append(tape.new(times(tile, columns), compute))
        if row_width != compute:
            parts = (min(TILE_VOCABULARY, rows), min(TILE_VOCABULARY, rows - TILE_VOCABULARY))
            found.extend(
                tape.new(constant(part * columns), compute) for part in parts[:held] if part > 0
            )
        if not triton:
            part = times(tile, min(TILE_VOCABULARY, rows))
            found.extend(tape.new(part, op.FULL) for _ in range(unfolded))
        return found

    def rule(gradient: Tensor) -> list[Tensor | None]:
        total = tape.new(elements, op.FULL)
        head = tape.new(whole, op.FULL) if trains else None
        tiles = work(6, held=2)
        del tiles[1:]
        narrow = total if own == op.FULL else tape.new(elements, own)
        found: list[Tensor | None] = [narrow, None]
        if head is not None:
            found[1] = head if row_width == op.FULL else tape.new(whole, row_width)
        del total, head, tiles
        return found

    chosen = hidden
    if triton:
        chosen = tape.make((hidden,), tape.like(hidden), (), lambda g: [tape.like(g)])
    numbers = tape.new(times(elements, 7 / columns), op.FULL)
    tiles = work(5, held=1)
    del tiles[1:]
    result = tape.new(times(elements, 1 / columns), op.FULL)
    statistics = tape.new(times(elements, 2 / columns), op.FULL)
    del numbers, tiles
    return tape.make((chosen, weight), result, (chosen, statistics), rule)


def _stock(tape: Tape, hidden: Tensor, weight: Weight, stack: Stack) -> Tensor:
    """transformers' loss: logits, their float32 copy, log-softmax, and the gradients of each.

    The logits and their copies are variables of the functions that make the loss, so they live
    until the forward pass ends.
    """
    logits = op.linear(tape, hidden, weight)
    whole = logits.elements
    if stack.loss in ("half", "pieces"):
        return _half(tape, logits, times(hidden.elements, 1 / weight.columns), stack)
    wide = tape.cast(logits, op.FULL)
    if stack.loss == "rebound":
        del logits
    rows = wide
    if stack.loss in ("shifted", "rebound"):
        # Of all positions but the last; backwards the gradient is laid into zeros of all.
        rows = tape.make((wide,), tape.like(wide), (), lambda g: [tape.like(g)])
    size = times(hidden.elements, 1 / weight.columns)
    if "cross_entropy" in stack.fused:
        return tape.make((rows,), tape.new(size, op.FULL), (), op.written_over(rows))
    chances = tape.new(whole, op.FULL)
    tape.make((rows,), chances, (chances,), lambda g: [tape.new(whole, op.FULL)])
    loss = tape.new(size, op.FULL)
    return tape.make((chances,), loss, (chances,), lambda g: [tape.new(whole, op.FULL)])


def _half(tape: Tape, logits: Tensor, rows: Form, stack: Stack) -> Tensor:
    """The loss in the logits' width, of a shifted copy unless it is made in pieces; cross-entropy
    casts to float32 only under autocast."""
    whole = logits.elements
    shifted = logits
    if stack.loss == "half":
        shifted = tape.make((logits,), tape.like(logits), (), lambda g: [tape.like(g)])
    if "cross_entropy" in stack.fused:
        # accelerate gives back float32 logits while the loss's copy lives.
        copy = tape.new(whole, op.FULL) if tape.autocast is not None else None
        del copy
        return tape.make((shifted,), tape.new(rows, op.FULL), (), op.written_over(shifted))
    wide = tape.cast(shifted, op.FULL) if tape.autocast is not None else shifted
    chances = tape.new(whole, wide.width)
    size = wide.width
    tape.make((wide,), chances, (chances,), lambda g: [tape.new(whole, size)])
    loss = tape.new(rows, op.FULL)
    return tape.make((chances,), loss, (chances,), lambda g: [tape.new(whole, size)])


def _liger(tape: Tape, hidden: Tensor, weight: Weight) -> Tensor:
    """Liger's fused linear cross-entropy: gradients are made in the forward pass, in chunks."""
    elements, own = hidden.elements, hidden.width
    rows, row_width = weight.elements, weight.width
    trains = weight.node is not None
    head = tape.new(rows, row_width) if trains else None
    inner = tape.new(elements, own)
    # As many chunks as the vocabulary is wider than the hidden size, so one is like hidden.
    chunk = tape.new(times(elements, 1.0), own)
    wide = tape.new(times(elements, 1.0), op.FULL)
    del chunk, wide
    stored = op.written_over(inner, head)
    del inner, head
    return tape.make(
        (hidden, weight),
        tape.new(times(hidden.elements, 1 / weight.columns), op.FULL),
        (),
        stored,
    )
