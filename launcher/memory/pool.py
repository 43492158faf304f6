"""What torch's allocator holds and no tensor uses: the difference of reserved and allocated memory.

The allocator keeps what was freed, and gives a piece of it to the next tensor that fits. Before it
fails it gives idle pieces back, so no run needs this memory; but it is what nvidia-smi shows.
"""

from __future__ import annotations

from launcher.memory.stack import Stack
from launcher.memory.types import Settings
from launcher.memory.walk import Items

EXPANDABLE = 0.04
"""Idle over allocated where segments can grow (`expandable_segments`), and where nothing passes."""
PASSES_OF_A_BLOCK = 2
"""While whole logits are made, what a block used in its forward pass and in its backward pass lies
idle: in pieces, none of which is large enough."""
WIDE_COPIES = 2
"""Of the logits in half precision: those that the fused cross-entropy frees before its float32 ones
are made lie idle, too."""
PASSING = 0.12
"""Backwards, of what comes and goes; so where logits are made in tiles."""
FIRST_STEP = 0.07
"""torch's optimizers make their states at the first step, out of pieces that fit badly."""
GATHERED = {"whole logits": 0.33, "tiles": 0.25}
"""Where weights are gathered and let go of all the time; DeepSpeed's own states apart, which lie in
buffers that it makes at its start."""
_PASS = ("activations", "logits", "autocast copies")


def idle(
    phase: str, items: Items, settings: Settings, stack: Stack, *, block: float, logits: float
) -> float:
    """Bytes of the pool that no tensor of `items` uses at the peak of `phase`.

    `block` is what one block's forward pass needs for a while, `logits` the size of the logits in
    half precision. The shares are medians of public runs that have both figures; what is counted in
    passes and copies is what has been freed by then (`docs/memory-accuracy.md`).
    """
    tensors = sum(items.values())
    if stack.expandable:
        return EXPANDABLE * tensors
    tiled = stack.loss in ("fused head", "tiled", "liger")
    if settings.zero_stage == 3:
        own = 0.0
        if stack.sharding == "zero":
            if phase == "step":
                return EXPANDABLE * tensors
            own = items.get("optimizer", 0.0) + items.get("gradients", 0.0)
        return GATHERED["tiles" if tiled else "whole logits"] * (tensors - own)
    if phase == "loss" and not tiled:
        freed = WIDE_COPIES * logits if "cross_entropy" in stack.fused else 0.0
        return PASSES_OF_A_BLOCK * block + freed
    if phase in ("loss", "backward"):
        return PASSING * sum(items.get(name, 0.0) for name in _PASS)
    if phase == "step" and settings.zero_stage == 0:
        return FIRST_STEP * tensors
    return EXPANDABLE * tensors
