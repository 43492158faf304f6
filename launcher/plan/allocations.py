"""What a choice comes to: what is asked of the scheduler, and what DeepSpeed is told. Pure."""

from __future__ import annotations

import math
from typing import Any

from launcher.memory.models import residents
from launcher.memory.types import GIB, Settings
from launcher.plan import limits, vllm
from launcher.plan.choices import Choice
from launcher.plan.deepspeed import deepspeed_config
from launcher.plan.layouts import cpus
from launcher.plan.search import Search, host_bytes
from launcher.plan.types import Allocation, Prediction

LEAST_HOST_GIB = 4
"""Asked of every node at least: less would save nothing that a killed stage is worth."""


def prediction(search: Search, choice: Choice) -> Prediction:
    """How fast the stage will be there."""
    speed = search.speed(choice.layout)
    peak = speed.peak if search.cluster.device == "cuda" else 0.0
    return limits.prediction(choice, search.work(choice.settings), known=speed.known, peak=peak)


def allocation(search: Search, choice: Choice, predicted: Prediction) -> Allocation:
    """What is asked of the scheduler: what the recipe pins, else what `choice` needs."""
    layout, pins = choice.layout, search.stage.resources
    gpu = layout.group.gpu if layout.on_gpus else None
    minutes = limits.minutes(layout, pins, predicted)
    most = max(1, int(layout.group.memory_gib))
    return Allocation(
        partition=layout.partition.name,
        gpu=gpu,
        gpu_memory_gib=search.cluster.gpus[gpu].memory_gib if gpu else None,
        nodes=layout.nodes,
        tasks_per_node=layout.per_node,
        cpus_per_task=cpus(layout, pins),
        host_memory_gib=pins.host_memory_gib or float(min(host_gib(search, choice), most)),
        time_minutes=minutes,
        signal_lead_s=limits.signal_lead_s(choice, minutes),
        server_gpus=layout.server,
        server_apart=layout.apart,
    )


def host_gib(search: Search, choice: Choice) -> int:
    """Host memory (whole GiB) that each node needs."""
    layout, device = choice.layout, search.cluster.device
    needs = -(-host_bytes(choice.estimate, layout.per_node) // GIB)
    serves = vllm.serves(search.stage, search.shapes, layout, device)
    if serves is not None:
        needs = math.ceil(vllm.host_gib(layout, serves, device, needs))
    return max(needs, LEAST_HOST_GIB)


def deepspeed(search: Search, settings: Settings) -> dict[str, Any] | None:
    """The whole configuration of DeepSpeed; None: it is not used."""
    if not settings.zero_stage:
        return None
    trained = sum(model.trained for model in residents(search.stage, search.shapes))
    return deepspeed_config(search.stage, settings, search.bases[settings.zero_stage], trained)
