"""Which formula an estimate came from, told by what it says of a fixed stage. Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from launcher.memory.estimate import estimate
from launcher.memory.types import Settings
from launcher.models.types import ModelShape
from launcher.plan.evidence import Kind
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Data, Peft, Stage

_SHAPE = ModelShape("probe", 4, 256, 704, 8, 4, 32, 4096, 4096, tied_embeddings=False)
_ZERO = {"none": 0, "zero-1-2": 2, "zero-3": 3}


@lru_cache(maxsize=256)
def fingerprint(kind: Kind) -> str:
    """Eight hex digits that change when the estimate of a kind of stage does.

    A correction learned under one formula would be wrong under the next. No version number that
    somebody must remember to raise: it is the hash of what the formula says of a small model of
    that kind, with and without checkpointing.
    """
    method = METHODS[kind.method]
    peft = None
    if kind.adapter != "full":
        peft = Peft(quantization="nf4" if kind.adapter == "qlora" else None)
    roles = {role: f"probe-{role}" for role in method.roles}
    stage = Stage("probe", kind.method, roles, data=Data("probe"), peft=peft, global_batch=16)
    shapes = dict.fromkeys((*method.roles, "candidate"), _SHAPE)
    said = []
    for checkpointing in (False, True):
        settings = Settings(
            processes=2,
            processes_per_node=2,
            zero_stage=_ZERO[kind.sharding],
            offload="optimizer" if kind.offload else "none",
            gradient_checkpointing=checkpointing,
            micro_batch=2,
            accumulation=4,
            device=kind.device,
        )
        found = estimate(stage, shapes, settings)
        said.append([(phase.name, sorted(phase.items.items())) for phase in found.phases])
    return hashlib.sha256(repr(said).encode()).hexdigest()[:8]
