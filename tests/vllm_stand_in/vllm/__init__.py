"""A stand-in for vLLM: what TRL 1.16 imports of it and asks of its server, on CPU, with faults.

It is what the tests put in the place of the package, in an environment of their own. The weights
travel over a socket instead of NCCL, and TRL's client is told that this is a GPU, which is the one
thing that is changed of TRL: it refuses every other device before it sends a weight.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.30.0"


class _Absent:
    """What TRL imports and uses beside its trainers only (`vllm_mode: colocate`)."""


def __getattr__(name: str) -> Any:
    if name not in ("LLM", "RequestOutput", "SamplingParams"):
        raise AttributeError(name)
    # TRL asks for these once its client is there.
    from trl.generation.vllm_client import VLLMClient

    client: Any = VLLMClient
    original = client.init_communicator
    if not hasattr(original, "stands_in"):

        def init_communicator(self: Any, device: Any = 0) -> None:
            original(self, "cuda")

        init_communicator.stands_in = True  # type: ignore[attr-defined]
        client.init_communicator = init_communicator
    return _Absent
