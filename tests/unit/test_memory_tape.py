"""What autograd's rules give for single blocks, beside figures that are known otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.memory import operations as op
from launcher.memory.block import Kind
from launcher.memory.stack import LIGER, Stack
from launcher.memory.tape import Tape, Tensor, Weight, per_token
from launcher.memory.walk import profile
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

SHAPE = ModelShape("half a billion", 24, 896, 4864, 14, 2, 64, 151936, 32768, family="qwen2")
H, M, Q, KV, HEADS = 896, 4864, 896, 128, 14
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def kept(kind: Kind, *, checkpointing: bool = False) -> float:
    """Bytes a token that a block keeps for its backward pass."""
    found = profile(kind, checkpointing=checkpointing, keeps_gradients=True).kept
    return sum(form[1] for form in found.values())


def test_full_training_keeps_the_traced_bytes() -> None:
    expected = 16 * H + 4 * Q + 4 * KV + 8 * M + 4 * HEADS + 8
    assert kept(Kind(SHAPE, Stack())) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", 28 * H + 8 * Q + 4 * KV + 10 * M + 4 * HEADS + 456),
        (ATTENTION, 20 * H + 8 * Q + 4 * KV + 6 * M + 4 * HEADS + 264),
    ],
)
def test_float32_adapters_without_autocast_keep_the_traced_bytes(
    targets: str | tuple[str, ...], expected: int
) -> None:
    assert kept(Kind(SHAPE, Stack(), Peft(r=16, targets=targets))) == expected


def test_a_checkpoint_is_the_input_of_a_block() -> None:
    assert kept(Kind(SHAPE, Stack()), checkpointing=True) == 2 * H


def test_kernels_keep_their_inputs_only() -> None:
    fused = kept(Kind(SHAPE, Stack(fused=LIGER)))
    # No float32 copy and result of two norms, no activation of the gate beside gate and up.
    assert fused == kept(Kind(SHAPE, Stack())) - 2 * (4 * H + 2 * H) - 2 * M + 2 * 2 * H


def test_eager_attention_keeps_scores_of_every_pair() -> None:
    found = profile(
        Kind(SHAPE, Stack(attention="eager")), checkpointing=False, keeps_gradients=True
    ).kept
    assert sum(form[2] for form in found.values()) == (4 + 2) * HEADS


def test_a_backward_pass_leaves_nothing_but_gradients() -> None:
    left = profile(Kind(SHAPE, Stack()), checkpointing=False, keeps_gradients=True).gradients
    weights = SHAPE.layer_parameters
    assert left["gradients"][0] == pytest.approx(2 * weights, rel=0.001)
    added = profile(Kind(SHAPE, Stack()), checkpointing=False, keeps_gradients=False).gradients
    assert added == {}


def test_what_nobody_holds_is_free_again() -> None:
    tape = Tape()
    x = tape.new(per_token(8), 2)
    x.node = None
    y = op.linear(tape, x, Weight(tape, 4, 8, 2, trains=True))
    assert tape.live["activations"] == (0.0, 8 * 2 + 4 * 2, 0.0)
    gradient = tape.like(y)
    bare = Tensor(y.elements, y.width, None, y.node)
    del x, y
    # The product has saved its input, not its result.
    assert tape.live["activations"] == (0.0, 8 * 2 + 4 * 2, 0.0)
    tape.backward(bare, gradient)
    del gradient
    assert tape.live["activations"] == (0.0, 0.0, 0.0)
    assert tape.live["gradients"] == (4 * 8 * 2, 0.0, 0.0)


def test_a_quantized_layer_is_unpacked_while_it_works() -> None:
    dense = Kind(SHAPE, Stack(), Peft(targets=ATTENTION))
    packed = replace(dense, stack=Stack(base="nf4"))
    assert kept(packed) == kept(dense)
    moment = profile(packed, checkpointing=False, keeps_gradients=True).forward
    plain = profile(dense, checkpointing=False, keeps_gradients=True).forward
    # Of one layer at a time, in two bytes.
    few = (1, 1)
    difference = sum(moment.highest(*few).values()) - sum(plain.highest(*few).values())
    assert 0 < difference <= 2 * H * M
