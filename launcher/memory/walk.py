"""Forward and backward through a whole model, from the tape of one block.

Blocks are alike, so one is taped and the others are counted: while block i of L is walked
backwards, i − 1 blocks still keep what they saved, and L − i have left their gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce

from launcher.memory.block import Block, Kind
from launcher.memory.stack import width
from launcher.memory.tape import (
    ZERO,
    Form,
    Live,
    Node,
    Tape,
    Tensor,
    at,
    minus,
    per_token,
    plus,
)

Items = dict[str, float]
"""Kind of memory → bytes."""


class Moments:
    """States of memory of which, for some batch and length, one is the highest."""

    def __init__(self, every: Iterable[Live]) -> None:
        """Those that another one exceeds for every batch and length are left out."""
        kept: list[tuple[Form, Live]] = []
        for live in every:
            size = reduce(plus, live.values(), ZERO)
            if not any(_within(size, other) for other, _ in kept):
                kept = [each for each in kept if not _within(each[0], size)]
                kept.append((size, live))
        self._kept = kept

    def highest(self, tokens: int, length: int) -> Items:
        """The one that takes most for `tokens` tokens in sequences of `length`."""
        if not self._kept:
            return {}
        return bytes_of(
            max(self._kept, key=lambda each: at(each[0], tokens, length))[1], tokens, length
        )


def _within(one: Form, other: Form) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one[2] <= other[2]


@dataclass(frozen=True)
class Profile:
    """A block: sizes are linear forms in the tokens of a micro-batch."""

    kept: Live
    """What stays of it until its backward pass."""
    cached: Live
    """What stays until the forward pass of the model ends (autocast's copies of weights)."""
    forward: Moments
    backward: Moments
    """Moments of its own passes, its kept memory included."""
    gradients: Live
    """What it leaves behind: the gradients of its weights."""


def tape_of(kind: Kind, *, records: bool, keeps_gradients: bool = True) -> Tape:
    autocast = width(kind.stack.compute) if kind.stack.autocast else None
    return Tape(records=records, autocast=autocast, keeps_gradients=keeps_gradients)


def entering(tape: Tape, kind: Kind, *, grows: bool = True) -> Tensor:
    """The residual stream as a block gets it. `grows`: its gradient flows on to the block below."""
    x = tape.new(per_token(kind.shape.hidden), kind.stack.stream)
    if tape.records and grows:
        x.node = Node((), lambda g: ())
    return x


@lru_cache(maxsize=1024)
def profile(
    kind: Kind, *, checkpointing: bool, keeps_gradients: bool, first: bool = False
) -> Profile:
    """The tape of one block that trains; `first`: the one on the embedding, which is frozen under
    adapters and then wants no gradient."""
    tape = tape_of(kind, records=True, keeps_gradients=keeps_gradients)
    x = entering(tape, kind, grows=not first)
    y = Block(tape, kind).forward(x, kind.stack.stream)
    root, made = Tensor(y.elements, y.width, None, y.node), tape.take()
    output = y.storage if checkpointing and kind.stack.reentrant else None
    del y
    if checkpointing:
        kept: Live = {"activations": per_token(kind.shape.hidden * kind.stack.stream)}
        copies, forward = reading(kind)
        if not kind.stack.reentrant:
            # It is made again up to the last tensor that is saved, at the first use of one.
            made = made[: tape.last_saved]
    else:
        copies, forward = _cache(kind), Moments(made)
        del x
        kept, made = _known(tape.live), []
    kept = _sum(kept, router_logits(kind))
    tape.end_autocast()
    base = dict(tape.live)
    gradient = tape.new(root.elements, root.width)

    def remake() -> None:
        waiting = {name: minus(form, base.get(name, ZERO)) for name, form in tape.live.items()}
        made[:] = [_sum(each, waiting) for each in made]
        if made:
            tape.moments.clear()

    if kind.stack.reentrant:
        remake()
    tape.backward(root, gradient, before_use=None if kind.stack.reentrant else remake)
    del gradient, output
    left = {name: form for name, form in tape.live.items() if name == "gradients"}
    return Profile(kept, copies, forward, Moments([*made, *tape.moments]), _known(left))


@lru_cache(maxsize=512)
def reading(kind: Kind) -> tuple[Live, Moments]:
    """A block's forward pass of which nothing is kept for a backward pass: (what stays until the
    model's forward pass ends, moments)."""
    tape = tape_of(kind, records=False)
    x = entering(tape, kind)
    y = Block(tape, kind).forward(x, kind.stack.stream)
    del x, y
    return _sum(_known(tape.live), _cache(kind)), Moments(tape.moments)


def router_logits(kind: Kind) -> Live:
    """Of one block, where the loss reads them; backwards their gradient is as large, and is there
    before the block is walked."""
    shape, stack = kind.shape, kind.stack
    if not (shape.experts and stack.balances_experts):
        return {}
    size = width(stack.compute if stack.autocast else stack.weights)
    return {"activations": per_token(shape.experts * size)}


def _cache(kind: Kind) -> Live:
    """Keys and values are views of the joint projection, so the whole of that stays."""
    if not kind.stack.keeps_cache:
        return {}
    shape, stack = kind.shape, kind.stack
    elements = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    size = max(stack.stream if stack.base != "dense" else 0, width(stack.compute))
    return {"kv cache": per_token(elements * size)}


def _known(live: Live) -> Live:
    return {name: form for name, form in live.items() if any(form)}


def _sum(one: Live, other: Live) -> Live:
    return one | {name: plus(one.get(name, ZERO), form) for name, form in other.items()}


def bytes_of(live: Live, tokens: int, length: int) -> Items:
    return {kind: at(form, tokens, length) for kind, form in live.items()}
