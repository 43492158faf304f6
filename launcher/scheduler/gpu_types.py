"""What the name of a GPU type tells. Pure.

The usable memory is the total that CUDA reports (what its out-of-memory messages call the total
capacity), in GiB, at the lower end of what drivers show; with ECC and the driver's reserve it is
less than the number on the box. A name tells it where the model was made with one size only, or
where the name carries the size. Prices are relative, an A100 of 40 GB is 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.cluster.types import Gpu


@dataclass(frozen=True)
class _Model:
    sizes: Mapping[int, tuple[float, float]]
    """GB on the box → usable GiB, relative price of an hour."""
    always_named: bool = False
    """Made with other sizes too, so that the name must carry the size."""
    bf16: bool = True


_MODELS = {
    "t4": _Model({16: (14.5, 0.25)}, bf16=False),
    "p100": _Model({16: (15.8, 0.2)}, always_named=True, bf16=False),
    "v100": _Model({16: (15.7, 0.3), 32: (31.7, 0.4)}, always_named=True, bf16=False),
    "v100s": _Model({32: (31.7, 0.4)}, bf16=False),
    "a10": _Model({24: (22.0, 0.5)}),
    "a30": _Model({24: (23.5, 0.6)}),
    "a40": _Model({48: (44.3, 0.6)}),
    "l4": _Model({24: (21.9, 0.4)}),
    "l40": _Model({48: (44.3, 0.8)}),
    "l40s": _Model({48: (44.3, 0.9)}),
    "a100": _Model({40: (39.4, 1.0), 80: (79.1, 1.4)}, always_named=True),
    "h100": _Model({80: (79.1, 2.5), 94: (93.0, 2.6)}, always_named=True),
    "h200": _Model({141: (139.8, 3.2)}),
    "b200": _Model({180: (178.3, 5.0)}),
}
_MIG = re.compile(r"\dg\.\d+gb")
_SIZE = re.compile(r"(\d{2,3})(?:gb?|gib)?")


def gpu_of(name: str) -> Gpu:
    """What is known of the type that Slurm or the driver calls `name`.

    `memory_gib` is None where the name leaves it open (`a100`, `gpu`), or names a MIG slice.
    """
    lowered = name.lower()
    words = [word for word in re.split(r"[^a-z0-9]+", lowered) if word]
    model = next((_MODELS[word] for word in words if word in _MODELS), None)
    if model is None or _MIG.search(lowered):
        return Gpu(memory_gib=None, bf16=model.bf16 if model else True)
    found = {int(match[1]) for match in map(_SIZE.fullmatch, words) if match}
    named = [size for size in found if size in model.sizes]
    if not found and not model.always_named:
        named = list(model.sizes)
    if len(named) != 1 or len(found) > 1:
        return Gpu(memory_gib=None, bf16=model.bf16)
    memory, price = model.sizes[named[0]]
    return Gpu(memory_gib=memory, bf16=model.bf16, price=price)
