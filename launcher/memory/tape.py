"""What a forward and a backward pass allocate, keep and free: autograd's rules, without torch.

A tape runs the operations of a block on tensors that have a size and no content. Sizes are linear
forms in the tokens of a micro-batch, so that one run serves every batch and length. The rules are
those of torch's eager mode: an operation saves what the gradients of its trained inputs need, its
gradients are new tensors, and everything is freed when its last holder lets go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

Form = tuple[float, float, float]
"""A size: a constant, a part for each token of the micro-batch, and a part for each token and
position of its sequence (attention scores)."""

ZERO: Form = (0.0, 0.0, 0.0)


def constant(size: float) -> Form:
    return (size, 0.0, 0.0)


def per_token(size: float) -> Form:
    return (0.0, size, 0.0)


def per_pair(size: float) -> Form:
    return (0.0, 0.0, size)


def times(form: Form, factor: float) -> Form:
    return (form[0] * factor, form[1] * factor, form[2] * factor)


def plus(one: Form, other: Form) -> Form:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def minus(one: Form, other: Form) -> Form:
    return plus(one, times(other, -1.0))


def at(form: Form, tokens: int, length: int) -> float:
    """The size for `tokens` tokens in sequences of `length`."""
    return form[0] + form[1] * tokens + form[2] * tokens * length


Live = dict[str, Form]
"""Kind of memory (`activations`, `gradients`, `logits`, `autocast copies`, …) → bytes."""


class Storage:
    """Bytes that live as long as somebody holds this object."""

    __slots__ = ("kind", "size", "tape")

    def __init__(self, tape: Tape, kind: str, size: Form) -> None:
        self.tape, self.kind, self.size = tape, kind, size
        tape.change(kind, size)

    def __del__(self) -> None:
        self.tape.change(self.kind, times(self.size, -1.0))

    def become(self, kind: str) -> None:
        """Count the same bytes as another kind."""
        self.tape.change(self.kind, times(self.size, -1.0))
        self.kind = kind
        self.tape.change(kind, self.size)


class Tensor:
    """`elements` of `width` bytes each; `node` made it, where a gradient flows back."""

    __slots__ = ("elements", "node", "storage", "width")

    def __init__(
        self, elements: Form, width: int, storage: Storage | None, node: Node | None = None
    ) -> None:
        self.elements, self.width, self.storage, self.node = elements, width, storage, node


Rule = Callable[[Tensor], Sequence["Tensor | None"]]
"""An operation's backward: the gradient of its result → that of each input."""


@dataclass(eq=False)
class Node:
    parents: tuple[Node | None, ...]
    rule: Rule
    saved: list[Storage | None] = field(default_factory=list)


class Weight(Tensor):
    """A parameter of `count` matrices (experts). Its own bytes are counted elsewhere, those of its
    gradient here."""

    __slots__ = ("columns", "gradient", "rows", "tape", "trains")

    def __init__(
        self, tape: Tape, rows: int, columns: int, width: int, trains: bool, count: int = 1
    ) -> None:
        super().__init__(constant(count * rows * columns), width, None)
        self.tape, self.rows, self.columns, self.trains = tape, rows, columns, trains
        self.gradient: Storage | None = None
        if trains and tape.records:
            self.node = Node((), self._accumulate)

    def _accumulate(self, gradient: Tensor) -> tuple[()]:
        # The first gradient is kept as it is; a later one is added to it and dropped.
        if self.gradient is None and self.tape.keeps_gradients and gradient.storage is not None:
            gradient.storage.become("gradients")
            self.gradient = gradient.storage
        return ()


class Tape:
    """One run of operations. `moments` are the states of memory that may be the highest.

    `records`: whether a backward pass will follow. `autocast`: the width that matrix products cast
    their inputs to. `keeps_gradients`: whether weights' gradients stay (the first micro-batch), or
    are added to what is there already.
    """

    def __init__(
        self, *, records: bool = True, autocast: int | None = None, keeps_gradients: bool = True
    ) -> None:
        self.records, self.autocast, self.keeps_gradients = records, autocast, keeps_gradients
        self.kind = "activations"
        self.live: Live = {}
        self.moments: list[Live] = []
        self.last_saved = 0
        """Moments up to the last tensor that was saved."""
        self._nodes: list[Node] = []
        self._casts: dict[int, tuple[Weight, Tensor]] = {}

    def change(self, kind: str, size: Form) -> None:
        one = self.live.get(kind, ZERO)
        self.live[kind] = (one[0] + size[0], one[1] + size[1], one[2] + size[2])

    def new(self, elements: Form, width: int, kind: str | None = None) -> Tensor:
        """A tensor that no gradient flows through."""
        tensor = Tensor(elements, width, Storage(self, kind or self.kind, times(elements, width)))
        self.moments.append(dict(self.live))
        return tensor

    def like(self, tensor: Tensor, width: int | None = None) -> Tensor:
        return self.new(tensor.elements, width or tensor.width)

    def make(
        self,
        inputs: Sequence[Tensor],
        result: Tensor,
        saves: Iterable[Tensor],
        rule: Rule,
    ) -> Tensor:
        """`result` as made of `inputs`, with what its backward needs, if there will be one."""
        parents = tuple(each.node for each in inputs)
        if self.records and any(parents):
            node = Node(parents, rule, [each.storage for each in saves])
            self._nodes.append(node)
            if node.saved:
                # Inputs are saved before the result is made.
                self.last_saved = len(self.moments) - (result.storage not in node.saved)
            result.node = node
        return result

    def take(self) -> list[Live]:
        """The moments so far, which are forgotten."""
        found, self.moments = self.moments, []
        return found

    def backward(
        self, result: Tensor, gradient: Tensor, before_use: Callable[[], None] | None = None
    ) -> None:
        """Walk back from `result`; the caller should hold neither of them. `before_use` is called
        before the first operation that uses something saved."""
        root = result.node
        del result
        waiting = {root: gradient}
        del gradient
        while self._nodes:
            node = self._nodes.pop()
            incoming = waiting.pop(node, None)
            if incoming is None:
                continue
            if node.saved and before_use is not None:
                before_use()
                before_use = None
            outgoing = node.rule(incoming)
            node.saved.clear()
            del incoming
            for parent, each in zip(node.parents, outgoing, strict=True):
                if parent is None or each is None:
                    continue
                if not parent.parents:
                    parent.rule(each)
                elif parent not in waiting:
                    waiting[parent] = each
            del outgoing, parent, each, node

    def cast(self, tensor: Tensor, width: int) -> Tensor:
        """The tensor in another width; itself where it has that already."""
        if tensor.width == width:
            return tensor
        kept = self._casts.get(id(tensor))
        if kept is not None:
            return kept[1]
        before = tensor.width
        kind = "autocast copies" if isinstance(tensor, Weight) else None
        result = self.new(tensor.elements, width, kind)
        self.make((tensor,), result, (), lambda g: (self.like(g, before),))
        if isinstance(tensor, Weight) and tensor.trains:
            # Autocast keeps the copies of trained weights until it ends.
            self._casts[id(tensor)] = (tensor, result)
        return result

    def end_autocast(self) -> None:
        self._casts.clear()
