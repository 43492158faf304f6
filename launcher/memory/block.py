"""One transformer block on a tape, written down as transformers computes it."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory import operations as op
from launcher.memory.lora import (
    EXPERTS_DOWN,
    EXPERTS_UP,
    ROUTER,
    joint,
    parameter_rank,
    targets,
)
from launcher.memory.modules import HEAD, embeddings
from launcher.memory.stack import Stack, width
from launcher.memory.tape import Tape, Tensor, Weight, constant, per_token
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

_WIDE_NORM = ("gemma", "gemma2", "gemma3_text", "olmo2")
"""Families whose norm is multiplied with its weight in float32."""


@dataclass(frozen=True)
class Kind:
    """What a block's memory depends on, but for the batch."""

    shape: ModelShape
    stack: Stack
    peft: Peft | None = None
    trains: bool = True
    """Whether its weights (or adapters) train."""

    @property
    def full(self) -> bool:
        """Whether all weights train."""
        return self.trains and self.peft is None

    @property
    def head(self) -> bool:
        """Whether the head's weight trains: with all, or whole beside an adapter."""
        return self.full or self._copies((HEAD,))

    @property
    def embedding(self) -> bool:
        """The same of the embedding of tokens."""
        return self.full or self._copies(embeddings(self.shape)[:1])

    def _copies(self, paths: tuple[str, ...]) -> bool:
        saved = self.peft.modules_to_save if self.trains and self.peft is not None else ()
        return bool(saved) and any(path.endswith(saved) for path in paths)


class Block:
    """The operations of one block, with fresh weights.

    A module's caller holds the input until the module returns, so inputs are not let go early.
    """

    def __init__(self, tape: Tape, kind: Kind) -> None:
        self.tape, self.kind = tape, kind
        self.width = width(kind.stack.weights)
        adapts = kind.peft is not None and kind.trains
        self.adapted = (
            targets(kind.peft, kind.shape) if adapts and kind.peft is not None else frozenset()
        )

    def forward(self, x: Tensor, rotary: int) -> Tensor:
        """`rotary`: bytes of an element of cos and sin."""
        shape, tape = self.kind.shape, self.tape
        if shape.parallel:
            return self._parallel(x, rotary)
        if shape.post_norms:
            return self._normed_after(x, rotary)
        attended = self.attention(self.norm(x), rotary)
        if shape.layer_norms == 4:
            attended = self.norm(attended)
        x = op.add(tape, x, attended)
        del attended
        inner = self.mlp(self.norm(x))
        if shape.layer_norms == 4:
            inner = self.norm(inner)
        return op.add(tape, x, inner)

    def _normed_after(self, x: Tensor, rotary: int) -> Tensor:
        """The norms are of what attention and MLP give."""
        x = op.add(self.tape, x, self.norm(self.attention(x, rotary)))
        return op.add(self.tape, x, self.norm(self.mlp(x)))

    def _parallel(self, x: Tensor, rotary: int) -> Tensor:
        """Attention and MLP side by side on the same input."""
        normal = self.norm(x)
        attended = self.attention(normal, rotary)
        if self.kind.shape.layer_norms == 2:
            normal = self.norm(x)
        inner = self.mlp(normal)
        del normal
        both = op.add(self.tape, inner, attended)
        del inner, attended
        return op.add(self.tape, both, x)

    def norm(self, x: Tensor, columns: int | None = None) -> Tensor:
        shape, tape = self.kind.shape, self.tape
        weight = self.weight(columns or shape.hidden, 1)
        if shape.norm == "python layer":
            return op.python_layer_norm(tape, x, weight)
        if shape.norm == "layer":
            return op.layer_norm(tape, x, weight)
        if "rms_norm" in self.kind.stack.fused:
            return op.fused_rms_norm(tape, x, weight)
        if shape.family in _WIDE_NORM:
            return op.gemma_norm(tape, x, weight)
        return op.rms_norm(tape, x, weight)

    def attention(self, x: Tensor, rotary: int) -> Tensor:
        shape, tape, stack = self.kind.shape, self.tape, self.kind.stack
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        if joint(shape):
            both = self.project(x, "qkv_proj", wide + 2 * narrow, shape.hidden)
            q, k, v = op.split(tape, both, (wide, narrow, narrow))
            del both
        else:
            q = self.project(x, "q_proj", wide, shape.hidden)
            if shape.qk_norm:
                q = self.norm(q, shape.head_dim)
            k = self.project(x, "k_proj", narrow, shape.hidden)
            if shape.qk_norm:
                k = self.norm(k, shape.head_dim)
            v = self.project(x, "v_proj", narrow, shape.hidden)
        if stack.joint_qkv:
            whole = tape.new(per_token(wide + 2 * narrow), v.width)
            v = Tensor(v.elements, v.width, whole.storage, v.node)
            del whole
        if not shape.learned_positions:
            part = shape.rotary_part
            q, k = op.rotary(tape, q, k, rotary, fused="rope" in stack.fused, part=part)
        compute = width(stack.compute) if tape.autocast is not None else v.width
        if stack.attention == "eager":
            attended = op.eager_attention(tape, q, k, v, shape.heads, width=compute)
        elif stack.masked:
            attended = op.masked_attention(tape, q, k, v, shape.heads, width=compute)
        else:
            repeats = stack.repeated_heads
            attended = op.flash_attention(
                tape, q, k, v, shape.heads, width=compute, repeats=repeats
            )
        del q, k, v
        return self._dropped(self.project(attended, "o_proj", shape.hidden, wide))

    def _dropped(self, x: Tensor) -> Tensor:
        return op.dropout(self.tape, x) if self.kind.shape.dropout else x

    def _activation(self, x: Tensor) -> Tensor:
        fused = self.kind.shape.activation == "kernel"
        return op.pointwise(self.tape, x) if fused else op.gelu_new(self.tape, x)

    def mlp(self, x: Tensor) -> Tensor:
        shape = self.kind.shape
        if not shape.experts:
            return self.dense_mlp(x, shape.intermediate)
        if self.kind.stack.expert_layers:
            routed = self.expert_loop(x)
            if not shape.shared_intermediate:
                return routed
            return op.add(self.tape, routed, self.dense_mlp(x, shape.shared_intermediate))
        if not shape.shared_intermediate:
            return self.experts(x)
        shared = self.dense_mlp(x, shape.shared_intermediate)
        routed = self.experts(x)
        gate = self.project(x, "shared_expert_gate", 1, shape.hidden)
        gate = op.pointwise(self.tape, gate, saves_result=True)
        return op.add(self.tape, routed, op.multiply(self.tape, shared, gate))

    def experts(self, x: Tensor) -> Tensor:
        """Each token through some of the experts, sorted by expert, in two grouped products
        (`grouped_mm_experts_forward`)."""
        shape, tape = self.kind.shape, self.tape
        h, m, k = shape.hidden, shape.intermediate, shape.experts_per_token
        share, chosen = self._routing(x)
        up_weight = self._matrices(EXPERTS_UP, 2 * m, h, shape.experts)
        order = tape.like(chosen)
        position = tape.like(chosen)
        rows = op.gather(tape, x, k, position)
        share = op.gather(tape, share, 1, order)
        both = op.grouped_linear(tape, rows, up_weight)
        gate, up = op.split(tape, both, (m, m))
        active = op.pointwise(tape, gate)
        product = op.multiply(tape, active, up)
        # The gate's function has returned; the rest are variables of the experts' own.
        del gate, up, active, both
        down_weight = self._matrices(EXPERTS_DOWN, h, m, shape.experts)
        out = op.grouped_linear(tape, product, down_weight)
        del product
        weighted = op.multiply(tape, out, share)
        ordered = op.gather(tape, weighted, 1, tape.like(chosen))
        del weighted
        return tape.cast(op.total(tape, ordered, k), x.width)

    def _routing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token and expert that it goes to: the weight, and the expert's number."""
        shape, tape = self.kind.shape, self.tape
        scores = op.linear(tape, x, self._matrices(ROUTER, shape.experts, shape.hidden, 1))
        own = scores.width
        chances = op.pointwise(tape, tape.cast(scores, op.FULL), saves_result=True)
        del scores
        number = tape.new(per_token(shape.experts_per_token), op.INDEX)
        part = shape.experts_per_token / shape.experts
        share = op.gather(tape, chances, part)
        # The best are divided by their sum in place; Mixtral's stay in float32.
        return share if shape.family == "mixtral" else tape.cast(share, own), number

    def _matrices(self, name: str, rows: int, columns: int, count: int) -> Weight:
        """Parameters of a mixture that are no layer's, with their adapters where they have any."""
        peft = self.kind.peft
        if name not in self.adapted or peft is None:
            return self.weight(rows, columns, count)
        size, rank = width(self.kind.stack.adapters), parameter_rank(name, peft)
        a = Weight(self.tape, count * rank, columns, size, True)
        b = Weight(self.tape, rows, count * rank, size, True)
        return op.folded(self.tape, a, b, rows, columns, self.width, count)

    def expert_loop(self, x: Tensor) -> Tensor:
        """Each expert on its own tokens, one after the other; of each as many."""
        shape, tape = self.kind.shape, self.tape
        h, m = shape.hidden, shape.intermediate
        part = shape.experts_per_token / shape.experts
        scores = tape.cast(op.linear(tape, x, self.weight(shape.experts, h)), op.FULL)
        chances = op.pointwise(tape, scores, saves_result=True)
        share = op.gather(tape, chances, part / shape.experts)
        del scores, chances
        found = tape.like(x)
        for _ in range(shape.experts):
            rows = op.gather(tape, x, part)
            active = op.pointwise(tape, self.project(rows, "expert", m, h))
            product = op.multiply(tape, active, self.project(rows, "expert", m, h))
            out = self.project(product, "expert", h, m)
            weighted = op.multiply(tape, out, share)
            found = op.add_into(tape, found, weighted)
            del rows, active, product, out, weighted
        return found

    def dense_mlp(self, x: Tensor, m: int) -> Tensor:
        shape, tape = self.kind.shape, self.tape
        h = shape.hidden
        if not shape.gated_mlp:
            up = self.project(x, "up_proj", m, h)
            active = self._activation(up)
            del up
            return self._dropped(self.project(active, "down_proj", h, m))
        if joint(shape):
            both = self.project(x, "gate_up_proj", 2 * m, h)
            gate, up = op.split(tape, both, (m, m))
            active = self._activation(gate)
            product = op.multiply(tape, up, active)
            # Its frame holds them until the function returns.
            return self._dropped(self.project(product, "down_proj", h, m))
        gate = self.project(x, "gate_proj", m, h)
        if "swiglu" in self.kind.stack.fused:
            up = self.project(x, "up_proj", m, h)
            return self.project(op.fused_swiglu(tape, gate, up), "down_proj", h, m)
        active = self._activation(gate)
        del gate
        up = self.project(x, "up_proj", m, h)
        product = op.multiply(tape, active, up)
        del active, up
        return self._dropped(self.project(product, "down_proj", h, m))

    def project(self, x: Tensor, name: str, rows: int, columns: int) -> Tensor:
        """A linear layer, with its adapter where it has one."""
        tape = self.tape
        if self.kind.stack.base != "dense" and self.kind.peft is not None:
            keeps = self.kind.stack.quantized_keeps
            result = op.quantized_linear(tape, x, rows, columns, width(keeps) if keeps else None)
        else:
            result = op.linear(tape, x, self.weight(rows, columns))
        if name in self.adapted:
            assert self.kind.peft is not None
            result = self._adapter(x, result, rows, columns, self.kind.peft)
        return result

    def _adapter(self, x: Tensor, result: Tensor, rows: int, columns: int, peft: Peft) -> Tensor:
        tape, kept = self.tape, result.width
        size = width(self.kind.stack.adapters)
        a, b = Weight(tape, peft.r, columns, size, True), Weight(tape, rows, peft.r, size, True)
        if "lora" in self.kind.stack.fused:
            return op.fused_adapter(tape, x, result, a, b, dropout=bool(peft.dropout))
        x = tape.cast(x, size)
        if peft.dropout:
            x = op.dropout(tape, x)
        if peft.dora:
            scaled = self._decomposed(x, result, a, b, size)
        else:
            low = op.linear(tape, x, a)
            high = op.linear(tape, low, b)
            del low
            scaled = op.scale(tape, high)
            del high
        result = op.add(tape, result, scaled)
        del scaled
        return tape.cast(result, kept)

    def _decomposed(self, x: Tensor, result: Tensor, a: Weight, b: Weight, size: int) -> Tensor:
        """DoRA: the norm of W + BA needs BA in full, made of an identity matrix, and W in the
        adapters' precision; then (s − 1) · Wx + s · BAx with a trained scale s a row."""
        tape, rows, columns = self.tape, b.rows, a.columns
        identity = tape.new(constant(columns * columns), size)
        if tape.autocast is not None and tape.autocast != size:
            # The product's own copy is what its graph keeps, and BA comes out narrow.
            kept = tape.new(constant(columns * columns), tape.autocast)
            narrow = tape.new(constant(rows * columns), tape.autocast)
            del identity
            identity = kept
            whole = tape.new(constant(rows * columns), size)
            del narrow, kept
        else:
            whole = tape.new(constant(rows * columns), size)
        copy = tape.new(constant(rows * columns), size)
        scaled, summed = tape.like(whole), tape.like(whole)
        del scaled, summed
        magnitude = Weight(tape, rows, 1, size, True)
        low = op.linear(tape, x, a)
        high = op.linear(tape, low, b)
        del low
        first = op.multiply(tape, result, magnitude)
        second = op.multiply(tape, high, magnitude)
        third = op.scale(tape, second)
        del second
        found = op.add(tape, first, third)
        del identity, whole, copy, first, third, high
        return found

    def head(self) -> Weight:
        """The LM head's."""
        shape = self.kind.shape
        return Weight(self.tape, shape.vocab, shape.hidden, self.width, self.kind.head)

    def weight(self, rows: int, columns: int, count: int = 1) -> Weight:
        return Weight(self.tape, rows, columns, self.width, self.kind.full, count)
