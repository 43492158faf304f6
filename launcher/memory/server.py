"""What a vLLM server takes of each of its GPUs, and the sequences that it can be asked for."""

from __future__ import annotations

from launcher.memory.lengths import completion_tokens, whole
from launcher.memory.stack import width
from launcher.memory.types import GIB, Phase
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

SERVER_SHARE = 0.9
"""Of a GPU's memory that a server takes, where `train.vllm_gpu_memory_utilization` does not say
(vLLM's `--gpu-memory-utilization`)."""
CONCURRENT = 16
"""Sequences of full length that a server's cache should hold at once: fewer would be written in
turns, and vLLM does not start where not one fits."""
BATCHED_TOKENS = 8192
"""Tokens of one forward pass: vLLM's `max_num_batched_tokens` for a server."""
CONTEXT = {"cuda": 3 * GIB // 2, "cpu": GIB // 2}
"""CUDA's context, NCCL's buffers and the captured graphs of one worker."""
HOST_GIB = {"cuda": 6, "cpu": 2}
"""Host memory of one worker: libraries, pinned buffers, its share of the API process."""


def colocated_share(stage: Stage) -> float:
    """Share of a GPU that vLLM takes beside the trainer."""
    given = stage.train.get("vllm_gpu_memory_utilization")
    return float(given) if given is not None else METHODS[stage.method].vllm_share


def server_share(stage: Stage) -> float:
    """Share of a GPU that a vLLM server takes."""
    given = stage.train.get("vllm_gpu_memory_utilization")
    return float(given) if given is not None else SERVER_SHARE


def served_tokens(stage: Stage) -> int | None:
    """Tokens of the longest sequence that vLLM is asked for: the recipe's word, else the longest
    prompt with its completion; None: not known, so that it takes the model's whole context."""
    stated = whole(stage.train, "vllm_max_model_length", 0)
    if stated:
        return stated
    if stage.data is None or stage.data.max_prompt_tokens is None:
        return None
    return stage.data.max_prompt_tokens + completion_tokens(stage)


def server_memory(
    stage: Stage, shape: ModelShape, gpus: int, device: str = "cuda", sequences: int = CONCURRENT
) -> Phase:
    """The least that each of `gpus` needs for vLLM to serve `shape` with tensor parallelism: its
    part of the weights and of the cache of `sequences` of full length, one pass, the logits of a
    token each, and a context. vLLM fills the rest of its share with more cache."""
    size = width(stage.dtype)
    row = 2 * shape.layers * shape.kv_heads * shape.head_dim * size
    # Key-value heads are copied where there are fewer of them than GPUs.
    parts = min(gpus, shape.kv_heads)
    activations = BATCHED_TOKENS * (4 * shape.hidden + 2 * shape.intermediate // gpus) * size
    if device == "cpu":
        activations = 0
    return Phase(
        "serve",
        {
            "weights": -(-shape.parameters * size // gpus),
            "kv cache": sequences * (served_tokens(stage) or shape.max_positions) * row // parts,
            "activations": activations,
            "logits": sequences * shape.vocab * 4,
            "context": CONTEXT["cpu" if device == "cpu" else "cuda"],
        },
    )
