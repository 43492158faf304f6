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


_EIGHT_BIT = 1 + 4 / 256
_FOREACH = Optimizer(moments=2, copies=1)

OPTIMIZERS = {
    "adamw_torch_fused": Optimizer(moments=2),
    "adamw_torch": _FOREACH,
    "adamw_anyprecision": _FOREACH,
    "adamw_bnb_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT),
    "adamw_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT),
    "paged_adamw_32bit": Optimizer(moments=0, fixed=8, paged=True),
    "paged_adamw": Optimizer(moments=0, fixed=8, paged=True),
    "paged_adamw_8bit": Optimizer(moments=0, fixed=2 * _EIGHT_BIT, paged=True),
    "lion_32bit": Optimizer(moments=0, fixed=4),
    "lion_8bit": Optimizer(moments=0, fixed=_EIGHT_BIT),
    "paged_lion_32bit": Optimizer(moments=0, fixed=4, paged=True),
    "paged_lion_8bit": Optimizer(moments=0, fixed=_EIGHT_BIT, paged=True),
    "adafactor": Optimizer(moments=0, fixed=0.01, work=16),
    "sgd": Optimizer(moments=0),
}
"""transformers' names. Adafactor keeps a row and a column of each matrix, a per cent at most, and
updates one parameter after the other through four float32 tensors of its size."""


def optimizer(name: str) -> Optimizer:
    """The rule of `name`; of one that is not in the table, plain AdamW's, which is the most."""
    return OPTIMIZERS.get(name, _FOREACH)
