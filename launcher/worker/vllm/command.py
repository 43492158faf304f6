"""The program that serves a stage's policy, and its variables. Pure.

TRL 1.16 wants vLLM's own server (`trl vllm-serve` is deprecated and only starts it): with a
weight-transfer engine over NCCL, log-probabilities of what was really sampled from, no cap on their
number, and the endpoints of development, among which are those that take weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from launcher.memory.server import served_tokens, server_share
from launcher.models.cache import MAIN, split
from launcher.recipe.types import Stage

MODULE = "vllm.entrypoints.cli.main"
# What joins the trainers; vLLM's workers have a world of their own.
_WORLD = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


def argv(
    python: str,
    stage: Stage,
    model: str,
    *,
    address: str,
    port: int,
    gpus: int,
    trust_remote_code: bool = False,
) -> list[str]:
    """The words of the server's program: no shell reads them."""
    name, revision = (model, MAIN) if model.startswith("/") else split(model)
    words = [
        python, "-m", MODULE, "serve", name,
        "--host", address,
        "--port", str(port),
        "--tensor-parallel-size", str(gpus),
        "--gpu-memory-utilization", f"{server_share(stage):g}",
        "--dtype", stage.dtype,
        "--model-impl", str(stage.train.get("vllm_model_impl") or "vllm"),
        "--seed", str(stage.seed),
        "--uvicorn-log-level", "warning",
        "--weight-transfer-config", json.dumps({"backend": "nccl"}),
        "--logprobs-mode", "processed_logprobs",
        "--max-logprobs", "-1",
    ]  # fmt: skip
    if revision != MAIN:
        words += ["--revision", revision, "--tokenizer-revision", revision]
    if trust_remote_code:
        words.append("--trust-remote-code")
        words += ["--code-revision", revision] if revision != MAIN else []
    longest = served_tokens(stage)
    return [*words, "--max-model-len", str(longest)] if longest is not None else words


def variables(
    given: Mapping[str, str], *, address: str, gpus: int, first: int, on_gpus: bool
) -> dict[str, str]:
    """`given`, the variables of the stage's trainers, as the server shall have them.

    `first`: the index of the server's first GPU among those of its node's tasks.
    """
    kept = {name: value for name, value in given.items() if name not in _WORLD}
    if on_gpus:
        visible = given.get("CUDA_VISIBLE_DEVICES", "")
        every = visible.split(",") if visible else [str(n) for n in range(first + gpus)]
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(every[first : first + gpus])
    return {**kept, "VLLM_SERVER_DEV_MODE": "1", "VLLM_HOST_IP": address}
