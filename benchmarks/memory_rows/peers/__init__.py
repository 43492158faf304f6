"""What other estimators say of the same cases, in bytes on one GPU; None where they do not answer.

Each is given what it can be told, and no margin is added to any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.memory_rows.case import Case
from benchmarks.memory_rows.peers import eleuther, fitcheck_llm, libraries, unsloth

Peer = Callable[[Sequence[Case]], list[float | None]]

PEERS: dict[str, Peer] = {
    "accelerate estimate-memory": libraries.accelerate,
    "DeepSpeed ZeRO estimators": libraries.deepspeed,
    "Unsloth VRAM estimation": lambda cases: [unsloth.estimate(case) for case in cases],
    "EleutherAI transformer math": lambda cases: [eleuther.estimate(case) for case in cases],
    f"fitcheck-llm {fitcheck_llm.VERSION}": fitcheck_llm.estimates,
}
