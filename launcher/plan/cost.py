"""How long a stage would take, well enough to rank allocations of one stage against each other.

A first model: arithmetic at a fixed share of an A100's peak, weights read from memory for each
generated token, and ZeRO's traffic over NVLink or the network. The same for every GPU type, since
a profile states prices and not speeds; so its absolute hours are not shown to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.cluster.types import Cluster
from launcher.memory.lengths import lengths, whole
from launcher.memory.models import residents
from launcher.memory.types import Settings
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

FLOPS = 125e12
"""Attained by one GPU in half precision (40 % of 312 TFLOP/s)."""
HBM = 1.2e12
NVLINK = 150e9
NETWORK = {"infiniband": 100e9, "ethernet": 3e9, "none": 1e9}
"""Bytes a second of one node (InfiniBand: an adapter of 200 Gbit/s for every two GPUs)."""
PCIE = 10e9
CPU_ADAM = 3e9
"""Parameters a second that a node's processors update together (28 bytes each from memory)."""
HALF_SPEED_TOKENS = 1024
"""Tokens of a micro-batch at which a GPU reaches half of what it attains."""
STEP_OVERHEAD = 0.05
"""Seconds of Python, kernels' launches and input of one forward and backward pass."""
ASSUMED_ROWS = 20_000
"""Rows of the data where the recipe does not say."""
STARTUP_HOURS = 0.1
"""Imports, loading, compiling and saving, while every GPU of the allocation waits."""
OVERNIGHT_HOURS = 12.0
LAYER_SECONDS = 0.0008
"""Least time of a block for one generated token: its kernels' launches."""


@dataclass(frozen=True)
class Work:
    """What does not depend on the allocation: sizes (parameters) and tokens of one step."""

    main: int
    layers: int
    trained: int
    total: int
    frozen_forward: int
    """Parameters of the models that only read (reference, reward model)."""
    step_sequences: int
    sequence_tokens: int
    completion: int
    passes: int
    """Times that each sequence is trained on (PPO epochs)."""
    mini_batches: int
    """Global batches that are generated at once."""
    steps: int
    """Global batches of the whole stage."""
    online: bool
    trains: bool
    adapters: bool


def work_of(stage: Stage, shapes: Mapping[str, ModelShape], global_batch: int) -> Work:
    """The work of one global batch (of one round of batches, for evaluation), and their number."""
    models = residents(stage, shapes)
    method = METHODS[stage.method]
    length = lengths(stage, models[0].shape)
    frozen = sum(model.parameters for model in models[1:] if not model.trained)
    rows = (stage.data.rows if stage.data is not None else None) or ASSUMED_ROWS
    passes = whole(stage.train, "num_ppo_epochs", 4) if method.online else 1
    # One step here is one global batch, generated once and trained on `passes` times.
    steps = math.ceil(whole(stage.train, "max_steps", 0) / passes)
    if stage.method == "evaluate":
        rows = min(rows, whole(stage.train, "num_prompts", rows))
    if steps <= 0:
        epochs = stage.train.get("num_train_epochs", 1 if stage.method == "evaluate" else 3)
        steps = max(1, math.ceil(rows / global_batch * float(epochs)))
    if stage.method == "evaluate":
        steps *= max(1, len(stage.candidates))
    trained = sum(model.trained for model in models)
    return Work(
        main=models[0].parameters,
        layers=models[0].shape.layers,
        trained=trained,
        total=sum(model.parameters for model in models),
        frozen_forward=frozen,
        step_sequences=global_batch * method.sequences_per_row,
        sequence_tokens=length.total,
        completion=length.completion if method.online or stage.method == "evaluate" else 0,
        passes=passes,
        mini_batches=whole(stage.train, "num_mini_batches", 1) if method.online else 1,
        steps=steps,
        online=method.online,
        trains=stage.method != "evaluate",
        adapters=stage.peft is not None,
    )


def hours(work: Work, settings: Settings, cluster: Cluster) -> float:
    """Hours of the stage under `settings`: a relative figure."""
    n = settings.processes
    nodes = max(1, n // settings.processes_per_node)
    rate = FLOPS if cluster.device == "cuda" or cluster.gpus else FLOPS / 1000
    network = NETWORK[cluster.interconnect]
    # A collective over several nodes runs at the speed of a node's link.
    bandwidth = NVLINK if nodes == 1 else min(NVLINK, network)

    own = work.step_sequences / n
    tokens = own * work.sequence_tokens
    micro_tokens = settings.micro_batch * work.sequence_tokens
    efficiency = micro_tokens / (micro_tokens + HALF_SPEED_TOKENS)
    seconds = 0.0
    if work.trains:
        # Forward 2, backward 4 (2 where the weights are frozen), recompute 2 FLOPs a weight.
        flops = (4 if work.adapters else 6) + (2 if settings.gradient_checkpointing else 0)
        step = tokens * flops * work.main / (rate * efficiency)
        step += STEP_OVERHEAD * settings.accumulation
        step += _traffic(work, settings, bandwidth) + _offloading(work, settings)
        seconds += work.passes * step
    if work.completion:
        seconds += tokens * 2 * (work.frozen_forward + work.main) / rate
        weights = 2 * work.main
        each_token = weights / HBM + LAYER_SECONDS * work.layers
        if settings.zero_stage == 3 and not settings.gather_for_generation:
            each_token += weights / bandwidth if n > 1 else 0.0
            if settings.offload == "all":
                each_token += weights / n / PCIE
        seconds += work.completion * each_token / work.mini_batches
    return STARTUP_HOURS + work.steps * seconds / 3600


def _traffic(work: Work, settings: Settings, bandwidth: float) -> float:
    """Seconds of communication of one optimizer step that computation does not hide."""
    if settings.processes == 1:
        return 0.0
    exposed, accumulation = 0.5 / bandwidth, settings.accumulation
    if settings.zero_stage == 0:
        return exposed * 2 * 4 * work.trained
    if settings.zero_stage == 1:
        return exposed * 2 * 2 * work.trained
    if settings.zero_stage == 2:
        return exposed * 2 * work.trained * (accumulation + 1)
    # Weights are gathered for forward and backward, gradients scattered.
    return exposed * accumulation * (2 * 2 * work.main + 2 * work.trained)


def _offloading(work: Work, settings: Settings) -> float:
    """Seconds of one optimizer step that PCIe and the host's processors add."""
    if settings.offload == "none":
        return 0.0
    own, n = work.trained / settings.processes, settings.processes
    seconds = own * 4 / PCIE * (1 + settings.accumulation)
    seconds += own / (CPU_ADAM / settings.processes_per_node)
    if settings.offload == "all":
        seconds += settings.accumulation * 2 * 2 * work.main / n / PCIE
    return seconds


def score(gpus: int, price: float, duration: float) -> float:
    """What the owner of the budget weighs: GPU-hours × price, dearer the longer past a night.

    The cheapest allocation alone would be one GPU with everything offloaded, for weeks; the
    fastest would take the whole cluster for a few per cent.
    """
    return gpus * price * duration * (1 + duration / OVERNIGHT_HOURS)
