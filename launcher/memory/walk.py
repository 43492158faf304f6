"""Forward and backward through a whole model, from the tape of one block.

Blocks are alike, so one is taped and the others are counted: while block i of L is walked
backwards, i − 1 blocks still keep what they saved, and L − i have left their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from launcher.memory.block import Block, Kind
from launcher.memory.stack import width
from launcher.memory.tape import Live, Node, Tape, Tensor, at, per_token

Items = dict[str, float]
"""Kind of memory → bytes."""


@dataclass(frozen=True)
class Profile:
    """A block: sizes are linear forms in the tokens of a micro-batch."""

    kept: Live
    """What stays of it until its backward pass."""
    cached: Live
    """What stays until the forward pass of the model ends (autocast's copies of weights)."""
    forward: tuple[Live, ...]
    backward: tuple[Live, ...]
    """Moments of its own passes, its kept memory included."""
    gradients: Live
    """What it leaves behind: the gradients of its weights."""


def tape_of(kind: Kind, *, records: bool, keeps_gradients: bool = True) -> Tape:
    autocast = width(kind.stack.compute) if kind.stack.autocast else None
    return Tape(records=records, autocast=autocast, keeps_gradients=keeps_gradients)


def entering(tape: Tape, kind: Kind) -> Tensor:
    """The residual stream as a block gets it. Its gradient flows on to the block below."""
    x = tape.new(per_token(kind.shape.hidden), width(kind.stack.weights))
    if tape.records:
        x.node = Node((), lambda g: ())
    return x


@lru_cache(maxsize=512)
def profile(kind: Kind, *, checkpointing: bool, keeps_gradients: bool) -> Profile:
    """The tape of one block that trains."""
    tape = tape_of(kind, records=True, keeps_gradients=keeps_gradients)
    block, rotary = Block(tape, kind), width(kind.stack.weights)
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
    return Profile(kept, copies, _envelope(forward), _envelope([*again, *tape.moments]), left)


@lru_cache(maxsize=512)
def reading(kind: Kind) -> tuple[Live, ...]:
    """Moments of one block in a forward pass that nothing follows."""
    tape = tape_of(kind, records=False)
    x = entering(tape, kind)
    Block(tape, kind).forward(x, width(kind.stack.weights))
    return _envelope(tape.moments)


def highest(moments: tuple[Live, ...], tokens: int, length: int) -> Items:
    """The moment that takes most for `tokens` tokens in sequences of `length`."""
    found = (bytes_of(each, tokens, length) for each in moments)
    return max(found, key=lambda items: sum(items.values()), default={})


def bytes_of(live: Live, tokens: int, length: int) -> Items:
    return {kind: at(form, tokens, length) for kind, form in live.items()}


def _plus(live: Live, tensor: Tensor) -> Live:
    extra = (e * tensor.width for e in tensor.elements)
    found = dict(live)
    old = found.get("activations", (0.0, 0.0, 0.0))
    found["activations"] = tuple(a + b for a, b in zip(old, extra, strict=True))  # type: ignore[assignment]
    return found


def _envelope(moments: list[Live]) -> tuple[Live, ...]:
    """Without the moments that another one exceeds for every batch and length."""
    totals = [tuple(map(sum, zip(*each.values(), strict=True))) for each in moments]
    kept: list[int] = []
    for i, total in enumerate(totals):
        if any(all(a <= b for a, b in zip(total, totals[j], strict=True)) for j in kept):
            continue
        kept = [j for j in kept if not all(a <= b for a, b in zip(totals[j], total, strict=True))]
        kept.append(i)
    return tuple(moments[i] for i in kept)
