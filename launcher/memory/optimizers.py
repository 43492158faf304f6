"""What an optimizer keeps for a trained parameter, and makes while it steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimizer:
    """Bytes a trained parameter."""

    moments: float
    """States as wide as the weight: how many."""
    fixed: float = 0.0
    """States of a width of their own, in bytes (8-bit: a byte, and a float32 scale for 256)."""
    copies: float = 0.0
    """Temporary tensors as wide as the weight at the step (`foreach` updates all weights at once
    and needs the square root of every second moment)."""
    work: float = 0.0
    """Bytes an element of the largest parameter, at its update."""
    paged: bool = False
    """States move to the host when the device is short: they are counted there."""
    flat: Optimizer | None = None
    """The rule for one flat float32 vector of all weights, as DeepSpeed hands it over, where that
    is another."""


_EIGHT_BIT = 1 + 4 / 256
_FOREACH = Optimizer(moments=2, copies=1)
_ADEMAMIX = Optimizer(moments=0, fixed=12)

OPTIMIZERS = {
    "adamw_torch_fused": Optimizer(moments=2),
    "adamw_torch": _FOREACH,
    "adamw_anyprecision": _FOREACH,
    "rmsprop": Optimizer(moments=1, copies=1),
    "adagrad": Optimizer(moments=1, copies=1),
    "adamw_bnb_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT),
    "adamw_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT),
    "paged_adamw_32bit": Optimizer(moments=0, fixed=8, paged=True),
    "paged_adamw": Optimizer(moments=0, fixed=8, paged=True),
    "paged_adamw_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT, paged=True),
    "lion_32bit": Optimizer(moments=0, fixed=4),
    "lion_8bit": Optimizer(moments=0, fixed=_EIGHT_BIT),
    "paged_lion_32bit": Optimizer(moments=0, fixed=4, paged=True),
    "paged_lion_8bit": Optimizer(moments=0, fixed=_EIGHT_BIT, paged=True),
    "ademamix": _ADEMAMIX,
    "ademamix_8bit": Optimizer(moments=0, fixed=3 * _EIGHT_BIT),
    "paged_ademamix_32bit": Optimizer(moments=0, fixed=12, paged=True),
    "paged_ademamix_8bit": Optimizer(moments=0, fixed=3 * _EIGHT_BIT, paged=True),
    "rmsprop_bnb": Optimizer(moments=0, fixed=4),
    "rmsprop_bnb_32bit": Optimizer(moments=0, fixed=4),
    "rmsprop_bnb_8bit": Optimizer(moments=0, fixed=_EIGHT_BIT),
    "adafactor": Optimizer(
        moments=0, fixed=0.01, work=16, flat=Optimizer(moments=0, fixed=4, work=8)
    ),
    "sgd": Optimizer(moments=0),
}
"""transformers' names. Adafactor keeps a row and a column of each matrix, a per cent at most, and
updates one parameter after the other through four float32 tensors of its size; a vector has no rows
and columns, so that of it the whole second moment is kept, and two tensors are made. AdEMAMix has
three moments: a fast and a slow one of the gradient, and one of its square."""
_UNKNOWN = Optimizer(moments=0, fixed=12, copies=1)


def optimizer(name: str) -> Optimizer:
    """The rule of `name`; of one that is not in the table, the most of those that are: three
    moments in float32, and a copy."""
    return OPTIMIZERS.get(name, _UNKNOWN)


def on_vector(name: str) -> Optimizer:
    """The rule of `name` for the flat float32 vectors of DeepSpeed."""
    rule = optimizer(name)
    return rule.flat or rule
