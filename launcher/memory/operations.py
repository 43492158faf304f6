"""The operations that transformer blocks are made of, as torch's eager mode runs them on CUDA."""

from __future__ import annotations

from launcher.memory.tape import (
    Form,
    Rule,
    Tape,
    Tensor,
    Weight,
    constant,
    per_pair,
    per_token,
    plus,
    times,
)

HALF, FULL, INDEX = 2, 4, 8
"""Bytes of bfloat16 or float16, of float32, and of an index."""
SORTED = 4
"""What adding by an index needs beside it, in tensors of its size: a linear one, sorted, and its
order (`index_put_with_sort_kernel`)."""


def add(tape: Tape, one: Tensor, other: Tensor) -> Tensor:
    width, widths = max(one.width, other.width), (one.width, other.width)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        # One gradient goes to both; where a width differs it is cast.
        return [gradient if w == gradient.width else tape.like(gradient, w) for w in widths]

    return tape.make((one, other), tape.like(one, width), (), rule)


def multiply(tape: Tape, one: Tensor, other: Tensor) -> Tensor:
    """Elementwise; each input is saved where the other one needs a gradient."""
    width, elements = max(one.width, other.width), one.elements
    parts = ((one.elements, one.width), (other.elements, other.width))
    wanted = (one.node is not None, other.node is not None)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        full = [tape.new(elements, width) if want else None for want in wanted]
        # What was broadcast is summed to its own size, and what was narrow is cast once both are
        # there.
        return [
            tape.new(*part) if each is not None and part != (elements, width) else each
            for each, part in zip(full, parts, strict=True)
        ]

    saves = [each for each, want in ((one, wanted[1]), (other, wanted[0])) if want]
    return tape.make((one, other), tape.new(elements, width), saves, rule)


def scale(tape: Tape, tensor: Tensor) -> Tensor:
    """By a number: nothing is saved."""
    return tape.make((tensor,), tape.like(tensor), (), lambda g: [tape.like(g)])


def pointwise(tape: Tape, tensor: Tensor, *, saves_result: bool = False) -> Tensor:
    """A function of each element (SiLU, GELU), which saves its input (or its result)."""
    result = tape.like(tensor)
    saved = result if saves_result else tensor
    return tape.make((tensor,), result, (saved,), lambda g: [tape.like(g)])


def gelu_new(tape: Tape, tensor: Tensor) -> Tensor:
    """transformers' `gelu_new`, x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), written in Python:
    each operation makes a tensor, and autocast makes the power in float32."""
    x = tape.cast(tensor, FULL) if tape.autocast is not None else tensor
    half = scale(tape, tensor)
    cubed = _power(tape, x)
    del x
    small = scale(tape, cubed)
    del cubed
    summed = add(tape, tensor, small)
    del small
    scaled = scale(tape, summed)
    del summed
    bent = pointwise(tape, scaled, saves_result=True)
    del scaled
    more = tape.make((bent,), tape.like(bent), (), lambda g: [g])
    del bent
    return multiply(tape, half, more)


def linear(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """x · Wᵀ, of rows × columns = outputs × inputs. x is saved where W trains."""
    x: Tensor = tensor if tape.autocast is None else tape.cast(tensor, tape.autocast)
    w: Tensor = weight if tape.autocast is None else tape.cast(weight, tape.autocast)
    return _times(tape, x, w, weight.rows / weight.columns)


def grouped_linear(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """x · Wᵀ with a matrix for each group of rows, in W's precision: autocast does not know it."""
    return _times(tape, tape.cast(tensor, weight.width), weight, weight.rows / weight.columns)


def _times(tape: Tape, x: Tensor, w: Tensor, outputs: float) -> Tensor:
    """x · Wᵀ of `outputs` columns for each of x's."""
    wanted = (x.node is not None, w.node is not None)
    sizes, widths = (x.elements, w.elements), (x.width, w.width)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        return [
            tape.new(size, width) if want else None
            for want, size, width in zip(wanted, sizes, widths, strict=True)
        ]

    saves = [each for each, want in ((x, wanted[1]), (w, wanted[0])) if want]
    return tape.make((x, w), tape.new(times(x.elements, outputs), x.width), saves, rule)


def folded(
    tape: Tape, a: Weight, b: Weight, rows: int, columns: int, width: int, count: int
) -> Weight:
    """`count` frozen matrices with their adapters added, as one tensor (PEFT's `baddbmm`).

    The factors are cast to the matrices' `width` and kept; backwards each one's gradient is scaled,
    cast back, and B's laid out anew.
    """
    one, other = _factor(tape, a, width), _factor(tape, b, width, turned=True)
    sizes = (one.elements, other.elements)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for size in sizes:
            product = tape.new(size, width)
            found.append(tape.like(product))
            del product
        return found

    whole = Weight(tape, rows, columns, width, False, count)
    made = tape.new(whole.elements, width)
    tape.make((one, other), made, (one, other), rule)
    whole.storage, whole.node = made.storage, made.node
    return whole


def _factor(tape: Tape, weight: Weight, width: int, *, turned: bool = False) -> Tensor:
    """An adapter's matrix in another width; `turned`: its gradient needs a copy to lie like it."""
    own, elements = weight.width, weight.elements

    def rule(gradient: Tensor) -> list[Tensor | None]:
        found = gradient if own == width else tape.like(gradient, own)
        return [tape.like(found) if turned else found]

    result = Tensor(elements, width, None) if own == width else tape.new(elements, width)
    return tape.make((weight,), result, (), rule)


def rms_norm(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """x · rsqrt(mean(x²)) in float32, then in x's width, times the weight."""
    normal = _normal(tape, tensor, weight.rows)
    narrow = tape.cast(normal, tensor.width)
    return multiply(tape, narrow, weight)


def _normal(tape: Tape, tensor: Tensor, columns: int) -> Tensor:
    """x · rsqrt(mean(x²)) over rows of `columns`, in float32."""
    x = tape.cast(tensor, FULL)
    squares = _power(tape, x)
    root = _inverse_root(tape, squares, per_token(x.elements[1] / columns))
    del squares
    return multiply(tape, x, root)


def _power(tape: Tape, x: Tensor) -> Tensor:
    """A whole power of each element, which saves x."""
    elements, width = x.elements, x.width

    def rule(gradient: Tensor) -> list[Tensor | None]:
        # gradient · (n · xⁿ⁻¹): each factor is a tensor while the product is made.
        power, doubled = tape.new(elements, width), tape.new(elements, width)
        product = tape.new(elements, width)
        del power, doubled
        return [product]

    return tape.make((x,), tape.like(x), (x,), rule)


def _inverse_root(tape: Tape, squares: Tensor, rows: Form) -> Tensor:
    """rsqrt(mean + eps): a few numbers a row; backwards the mean is spread over the row again."""
    elements, width = squares.elements, squares.width
    root = tape.new(rows, FULL)
    return tape.make((squares,), root, (root,), lambda g: [tape.new(elements, width)])


def gemma_norm(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """As `rms_norm`, but times (1 + weight) in float32 before it is narrowed."""
    normal = _normal(tape, tensor, weight.rows)
    one_more = scale(tape, tape.cast(weight, FULL))
    scaled = multiply(tape, normal, one_more)
    del normal
    return tape.cast(scaled, tensor.width)


def python_layer_norm(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """(x - mean) · rsqrt(mean((x - mean)²)) times the weight in float32, written in Python
    (Cohere's); the difference is made twice."""
    x = tape.cast(tensor, FULL)
    rows = per_token(x.elements[1] / weight.rows)
    one = _centred(tape, x)
    squares = _power(tape, one)
    del one
    root = _inverse_root(tape, squares, rows)
    del squares
    normal = multiply(tape, _centred(tape, x), root)
    del x
    scaled = multiply(tape, normal, tape.cast(weight, FULL))
    del normal
    return tape.cast(scaled, tensor.width)


def _centred(tape: Tape, x: Tensor) -> Tensor:
    """x less the mean of its row; backwards the mean's gradient is spread, and joins x's."""
    return tape.make((x,), tape.like(x), (), lambda g: [tape.like(g)])


def fused_rms_norm(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """A kernel that keeps its input and one number a row, and gives the gradient in place."""
    rows = tape.new(per_token(tensor.elements[1] / weight.rows), FULL)
    trains = weight.node is not None

    def rule(gradient: Tensor) -> list[Tensor | None]:
        return [gradient, tape.new(constant(weight.rows), weight.width) if trains else None]

    return tape.make((tensor, weight), tape.like(tensor), (tensor, rows), rule)


def layer_norm(tape: Tape, tensor: Tensor, weight: Weight) -> Tensor:
    """torch's own kernel: keeps its input, a mean and a deviation a row."""
    x = tape.cast(tensor, FULL) if tape.autocast is not None else tensor
    statistics = tape.new(per_token(2 * x.elements[1] / weight.rows), FULL)
    trains = weight.node is not None

    def rule(gradient: Tensor) -> list[Tensor | None]:
        own = tape.like(gradient)
        return [own, tape.new(constant(weight.rows), weight.width) if trains else None]

    return tape.make((x, weight), tape.like(x), (x, statistics), rule)


def rotary(
    tape: Tape, q: Tensor, k: Tensor, width: int, *, fused: bool, part: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Rotary positions on queries and keys, or on a `part` of each head, which is then joined to
    the rest of it; the fused kernel turns them in place."""
    if fused:
        return q, k
    if part == 1:
        turned = rotate(tape, q, width)
        return turned, rotate(tape, k, width)
    both = []
    for each in (q, k):
        own, rest = split(tape, each, (part, 1 - part))
        both.append((rotate(tape, own, width), rest))
    first = _joined(tape, *both[0])
    return first, _joined(tape, *both[1])


def _joined(tape: Tape, one: Tensor, other: Tensor) -> Tensor:
    """Parts of each head in one tensor; backwards each part's gradient is a view."""
    elements = plus(one.elements, other.elements)
    width, widths = max(one.width, other.width), (one.width, other.width)
    sizes = (one.elements, other.elements)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        return [
            Tensor(size, width, gradient.storage) if own == width else tape.new(size, own)
            for size, own in zip(sizes, widths, strict=True)
        ]

    return tape.make((one, other), tape.new(elements, width), (), rule)


def rotate(tape: Tape, tensor: Tensor, width: int) -> Tensor:
    """x · cos + rotate_half(x) · sin, with cos and sin in `width`, which are not x's to save."""
    wide = max(tensor.width, width)
    own = tensor.width

    def back(gradient: Tensor) -> list[Tensor | None]:
        grown = tape.like(gradient, wide)
        return [grown if own == wide else tape.like(grown, own)]

    direct = tape.make((tensor,), tape.like(tensor, wide), (), back)
    turned = _rotate_half(tape, tensor)
    turned = tape.make((turned,), tape.like(turned, wide), (), back)
    return add(tape, direct, turned)


def split(tape: Tape, tensor: Tensor, parts: tuple[float, ...]) -> list[Tensor]:
    """Views of one tensor; backwards each part's gradient is laid into zeros of the whole."""
    total, elements, width = sum(parts), tensor.elements, tensor.width

    def rule(gradient: Tensor) -> list[Tensor | None]:
        return [tape.new(elements, width)]

    return [
        tape.make(
            (tensor,),
            Tensor(times(elements, part / total), width, tensor.storage),
            (),
            rule,
        )
        for part in parts
    ]


def dropout(tape: Tape, tensor: Tensor) -> Tensor:
    """Keeps a mask of one byte an element."""
    result, mask = tape.like(tensor), tape.like(tensor, 1)
    return tape.make((tensor,), result, (mask,), lambda g: [tape.like(g)])


def quantized_linear(
    tape: Tape, tensor: Tensor, rows: int, columns: int, keeps: int | None = None
) -> Tensor:
    """x · Wᵀ with W unpacked to half precision while the product runs, forwards and backwards.
    `keeps`: the width in which x is kept, needed or not."""
    x: Tensor = tensor if tape.autocast is None else tape.cast(tensor, tape.autocast)
    sizes, width = x.elements, x.width
    whole = constant(rows * columns)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        unpacked = tape.new(whole, HALF)
        found = tape.new(sizes, width)
        del unpacked
        return [found]

    unpacked = tape.new(whole, HALF)
    result = tape.new(times(x.elements, rows / columns), x.width)
    del unpacked
    saves = (tape.cast(x, keeps),) if keeps is not None else ()
    # bitsandbytes gives back the width that it was given, whatever autocast says.
    return tape.cast(tape.make((x,), result, saves, rule), tensor.width)


def gather(tape: Tape, tensor: Tensor, times_each: float, index: Tensor | None = None) -> Tensor:
    """Rows picked by an index, which is kept, each `times_each` times; backwards they are added
    into zeros, in the order of the sorted index."""
    elements, width = tensor.elements, tensor.width
    result = tape.new(times(elements, times_each), width)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        zeros = tape.new(elements, width)
        work = tape.new(times(index.elements, SORTED), index.width) if index is not None else None
        del work
        return [zeros]

    return tape.make((tensor,), result, (index,) if index is not None else (), rule)


def add_into(tape: Tape, whole: Tensor, rows: Tensor) -> Tensor:
    """Rows added to `whole` in place by index; backwards they are picked out again."""
    elements, width = rows.elements, rows.width
    result = Tensor(whole.elements, whole.width, whole.storage)
    return tape.make((whole, rows), result, (), lambda g: [g, tape.new(elements, width)])


def total(tape: Tape, tensor: Tensor, parts: int) -> Tensor:
    """The sum of every `parts` rows; backwards a row's gradient is spread without a copy."""
    elements, width = tensor.elements, tensor.width
    result = tape.new(times(elements, 1 / parts), width)
    return tape.make((tensor,), result, (), lambda g: [tape.new(elements, width)])


def fused_adapter(
    tape: Tape, tensor: Tensor, result: Tensor, a: Weight, b: Weight, *, dropout: bool
) -> Tensor:
    """An adapter added onto its base's result in place, which keeps nothing but the input, and with
    dropout what that left of it."""
    elements, width = tensor.elements, tensor.width
    parts = [(each.elements, each.width) for each in (a, b)]

    def rule(gradient: Tensor) -> list[Tensor | None]:
        inner = tape.new(elements, width)
        return [gradient, inner, *(tape.new(*part) for part in parts)]

    both = Tensor(result.elements, result.width, result.storage)
    saves = (tensor, tape.like(tensor)) if dropout else (tensor,)
    return tape.make((result, tensor, a, b), both, saves, rule)


def fused_swiglu(tape: Tape, gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up in one kernel, which keeps both and writes their gradients over them."""
    return tape.make((gate, up), tape.like(gate), (), written_over(gate, up))


def written_over(*tensors: Tensor | None) -> Rule:
    """A rule whose gradients are laid into `tensors`, which are kept for that."""
    kept = [t and Tensor(t.elements, t.width, t.storage) for t in tensors]

    def rule(gradient: Tensor) -> list[Tensor | None]:
        found = kept.copy()
        kept.clear()
        return found

    return rule


def _rotate_half(tape: Tape, tensor: Tensor) -> Tensor:
    """cat(-x₂, x₁)."""

    def rule(gradient: Tensor) -> list[Tensor | None]:
        # Each half's gradient is laid into zeros of the whole, and the two are added.
        negative = tape.new(times(gradient.elements, 0.5), gradient.width)
        one = tape.like(gradient)
        del negative
        other = tape.like(gradient)
        del other
        return [one]

    negative = tape.new(times(tensor.elements, 0.5), tensor.width)
    result = tape.like(tensor)
    del negative
    return tape.make((tensor,), result, (), rule)


def flash_attention(
    tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: int, *, width: int, repeats: bool = False
) -> Tensor:
    """FlashAttention-2: keeps q, k, v, the result and a float32 log-sum-exp a head.

    Backwards: a float32 accumulator of dq, a float32 row sum a head, and with grouped queries dk
    and dv for every query head before they are summed.
    """
    if repeats:
        k, v = _repeat(tape, k, q), _repeat(tape, v, q)
    q, k, v = (tape.cast(each, width) for each in (q, k, v))
    grouped = k.elements != q.elements
    sizes = (q.elements, k.elements, v.elements)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        rows = tape.new(per_token(heads), FULL)
        accumulator = tape.new(sizes[0], FULL)
        dq = tape.new(sizes[0], width)
        if not grouped:
            return [dq, tape.new(sizes[1], width), tape.new(sizes[2], width)]
        each_head = [tape.new(sizes[0], width), tape.new(sizes[0], width)]
        del rows, accumulator
        found: list[Tensor | None] = [dq, *(tape.new(size, width) for size in sizes[1:])]
        del each_head
        return found

    result, sums = tape.new(q.elements, width), tape.new(per_token(heads), FULL)
    return tape.make((q, k, v), result, (q, k, v, result, sums), rule)


def masked_attention(
    tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: int, *, width: int
) -> Tensor:
    """torch's scaled_dot_product_attention with a mask, which FlashAttention has no way for: the
    memory-efficient kernel, which has none for grouped queries (`repeat_kv`).

    The mask, true or false, becomes numbers to add (`convert_boolean_attn_mask`), for all heads
    one, and is kept like them. Backwards: a float32 accumulator of dq, a float32 row sum a head.
    """
    k, v = _repeat(tape, k, q), _repeat(tape, v, q)
    q, k, v = (tape.cast(each, width) for each in (q, k, v))
    sizes = (q.elements, k.elements, v.elements)
    added = tape.new(per_pair(1), width)

    def rule(gradient: Tensor) -> list[Tensor | None]:
        rows, accumulator = tape.new(per_token(heads), FULL), tape.new(sizes[0], FULL)
        found: list[Tensor | None] = [tape.new(size, width) for size in sizes]
        del rows, accumulator
        return found

    result, sums = tape.new(q.elements, width), tape.new(per_token(heads), FULL)
    return tape.make((q, k, v), result, (q, k, v, added, result, sums), rule)


def eager_attention(
    tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: int, *, width: int
) -> Tensor:
    """softmax(q · kᵀ) · v with the scores of every pair of tokens in memory, for each head."""
    q, k, v = (tape.cast(each, width) for each in (q, k, v))
    k, v = _repeat(tape, k, q), _repeat(tape, v, q)
    pairs = per_pair(heads)
    scores = _product(tape, q, k, pairs, width)
    scores = scale(tape, scores)
    masked = tape.make((scores,), tape.like(scores), (), lambda g: [g])
    del scores
    wide = tape.cast(masked, FULL) if tape.autocast is not None else masked
    chance = tape.new(pairs, FULL)
    chance = tape.make((wide,), chance, (chance,), lambda g: [tape.new(pairs, wide_width)])
    wide_width = wide.width
    del masked, wide
    narrow = tape.cast(chance, width)
    del chance
    result = _product(tape, narrow, v, q.elements, width)
    return tape.make((result,), tape.like(result), (), lambda g: [tape.like(g)])


def _repeat(tape: Tape, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.elements == like.elements:
        return tensor
    elements, width = tensor.elements, tensor.width
    return tape.make((tensor,), tape.like(like), (), lambda g: [tape.new(elements, width)])


def _product(tape: Tape, one: Tensor, other: Tensor, elements: Form, width: int) -> Tensor:
    sizes = (one.elements, other.elements)
    return tape.make(
        (one, other),
        tape.new(elements, width),
        (one, other),
        lambda g: [tape.new(size, width) for size in sizes],
    )
