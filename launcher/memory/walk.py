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
from launcher.memory.tape import ZERO, Form, Live, Node, Tape, Tensor, at, per_token, plus, times

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


def entering(tape: Tape, kind: Kind) -> Tensor:
    """The residual stream as a block gets it. Its gradient flows on to the block below."""
    x = tape.new(per_token(kind.shape.hidden), kind.stack.stream)
    if tape.records:
        x.node = Node((), lambda g: ())
    return x


@lru_cache(maxsize=512)
def profile(kind: Kind, *, checkpointing: bool, keeps_gradients: bool) -> Profile:
    """The tape of one block that trains."""
    tape = tape_of(kind, records=True, keeps_gradients=keeps_gradients)
    block, rotary = Block(tape, kind), kind.stack.stream
    x = entering(tape, kind)
    y = block.forward(x, rotary)
    forward = tape.moments
    tape.moments = []
    elements, size = y.elements, y.width
    own = y.storage
    root = Tensor(elements, size, None, y.node)
    if checkpointing:
        # Only the input outlives the forward pass; the rest is made again before it is used.
        copies = {k: v for k, v in tape.live.items() if k == "autocast copies"}
        kept: Live = {"activations": per_token(kind.shape.hidden * size)}
        gradient = tape.new(elements, size)
        again = [_plus(each, gradient) for each in forward]
        tape.moments = []
    else:
        copies = {}
        x.storage = None
        y.storage = own = None
        kept = {k: v for k, v in tape.live.items() if any(v)}
        gradient = tape.new(elements, size)
        again = []
    del y, own
    tape.end_autocast()
    held = x if checkpointing else None
    del x
    tape.backward(root, gradient)
    del gradient, held
    left = {k: v for k, v in tape.live.items() if k == "gradients" and any(v)}
    return Profile(kept, copies, Moments(forward), Moments([*again, *tape.moments]), left)


@lru_cache(maxsize=512)
def reading(kind: Kind) -> Moments:
    """Moments of one block in a forward pass that nothing follows."""
    tape = tape_of(kind, records=False)
    x = entering(tape, kind)
    Block(tape, kind).forward(x, kind.stack.stream)
    return Moments(tape.moments)


def bytes_of(live: Live, tokens: int, length: int) -> Items:
    return {kind: at(form, tokens, length) for kind, form in live.items()}


def _plus(live: Live, tensor: Tensor) -> Live:
    bytes_ = times(tensor.elements, tensor.width)
    return live | {"activations": plus(live.get("activations", ZERO), bytes_)}
