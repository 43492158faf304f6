"""What the name of a GPU type tells: memory, price, and how fast it is. Pure.

Memory is the total that CUDA reports (what its out-of-memory messages call the total capacity), in
GiB, at the lower end of what drivers show; with ECC and the driver's reserve it is less than the
number on the box. A name tells it where the model was made with one size only, or where the name
carries the size. Prices are relative, an A100 of 40 GB is 1.

Speeds are the vendors' data sheets': dense (no sparsity) tensor TFLOP/s with float32 accumulation,
float32 outside the tensor cores, memory bandwidth, NVLink (AMD: Infinity Fabric) of one GPU in one
direction, PCIe as attained from pinned memory. Bridges that join two cards are not counted.

The attainable MFU is the share of that peak which long rows of a wide model reach on one GPU in
transformers and TRL, recomputation counted: 0.50 on an A100 from Qwen's table of LoRA trainings of
a 7B model (5.2 s for 8 × 2048 tokens with checkpointing, QwenLM/Qwen README, "Profiling of Memory
and Speed"). Stacks with fused kernels reach 0.65 there and 0.47 on an H100 (mosaicml/llm-foundry,
scripts/train/benchmarking), from whose ratio the H100's is; the others are scaled by how their
arithmetic stands to memory bandwidth and power (an L4 and a T4 throttle at 72 W).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher.cluster.types import Gpu


@dataclass(frozen=True)
class _Size:
    memory_gib: float
    price: float
    bandwidth: float
    """GB/s."""


@dataclass(frozen=True)
class _Model:
    """A family of GPUs, and the sizes that it comes in."""

    sizes: Mapping[int, _Size]
    """By the GB on the box."""
    half: float
    """TFLOP/s in bfloat16 (where there is none: float16)."""
    single: float
    mfu: float
    nvlink: float = 0.0
    """GB/s; 0: none."""
    pcie: float = 24.0
    """Generation 3: 12 GB/s, 4: 24, 5: 50."""
    always_named: bool = False
    """Made with other sizes too, so that the name must carry the size."""
    bf16: bool = True
    card: _Model | None = None
    """The PCIe form of a model that has NVLink on its boards."""


def _one(size: int, memory: float, price: float, bandwidth: float) -> dict[int, _Size]:
    return {size: _Size(memory, price, bandwidth)}


_A100 = {40: _Size(39.4, 1.0, 1555), 80: _Size(79.1, 1.4, 2039)}
_A100_CARD = {40: _Size(39.4, 1.0, 1555), 80: _Size(79.1, 1.4, 1935)}
_V100 = {16: _Size(15.7, 0.3, 900), 32: _Size(31.7, 0.4, 900)}

# The words of a name that must all be there; the first entry that fits counts.
_MODELS: dict[tuple[str, ...], _Model] = {
    ("t4",): _Model(_one(16, 14.5, 0.25, 320), 65, 8.1, 0.35, pcie=12, bf16=False),
    ("p100",): _Model(
        _one(16, 15.8, 0.2, 732), 18.7, 9.3, 0.5, pcie=12, always_named=True, bf16=False
    ),
    ("v100",): _Model(
        _V100, 125, 15.7, 0.40, 150, 12, always_named=True, bf16=False,
        card=_Model(_V100, 112, 14.0, 0.40, 0, 12, always_named=True, bf16=False),
    ),
    ("v100s",): _Model(_one(32, 31.7, 0.4, 1134), 130, 16.4, 0.40, 0, 12, bf16=False),
    ("a10",): _Model(_one(24, 22.0, 0.5, 600), 125, 31.2, 0.40),
    ("a10g",): _Model(_one(24, 22.0, 0.5, 600), 70, 35.0, 0.50),
    ("a30",): _Model(_one(24, 23.5, 0.6, 933), 165, 10.3, 0.45),
    ("a40",): _Model(_one(48, 44.3, 0.6, 696), 150, 37.4, 0.45),
    ("a6000",): _Model(_one(48, 47.4, 0.6, 768), 155, 38.7, 0.45),
    ("l4",): _Model(_one(24, 21.9, 0.4, 300), 121, 30.3, 0.35),
    ("l40",): _Model(_one(48, 44.3, 0.8, 864), 181, 90.5, 0.45),
    ("l40s",): _Model(_one(48, 44.3, 0.9, 864), 362, 91.6, 0.35),
    ("3090",): _Model(_one(24, 23.6, 0.3, 936), 71, 35.6, 0.50),
    ("4090",): _Model(_one(24, 23.5, 0.4, 1008), 165, 82.6, 0.50),
    ("5090",): _Model(_one(32, 31.3, 0.7, 1792), 210, 104.8, 0.50, pcie=50),
    ("6000", "ada"): _Model(_one(48, 47.4, 0.8, 960), 364, 91.1, 0.35),
    ("a100",): _Model(
        _A100, 312, 19.5, 0.50, 300, always_named=True,
        card=_Model(_A100_CARD, 312, 19.5, 0.45, always_named=True),
    ),
    ("h100",): _Model(
        {80: _Size(79.1, 2.5, 3350), 94: _Size(93.0, 2.6, 3938)},
        989, 67, 0.38, 450, 50, always_named=True,
        card=_Model(
            {80: _Size(79.1, 2.2, 2000), 94: _Size(93.0, 2.6, 3938)},
            756, 51, 0.38, 0, 50, always_named=True,
        ),
    ),
    ("h200",): _Model(_one(141, 139.8, 3.2, 4800), 989, 67, 0.40, 450, 50),
    ("b200",): _Model(_one(180, 178.3, 5.0, 7700), 2250, 75, 0.32, 900, 50),
    ("mi210",): _Model(_one(64, 63.9, 0.9, 1638), 181, 22.6, 0.40),
    # One of the two dies, which is what programs see as a GPU.
    ("mi250x",): _Model(_one(64, 63.9, 0.9, 1638), 191, 23.9, 0.40, 100),
    ("mi300x",): _Model(_one(192, 191.0, 2.5, 5300), 1307, 163, 0.28, 448, 50),
}  # fmt: skip
_MIG = re.compile(r"\dg\.\d+gb")
_SIZE = re.compile(r"(\d{2,3})(?:gb?|gib)?")
_CARD = {"pcie", "nvl"}


def gpu_of(name: str) -> Gpu:
    """Memory, price and number format of the type that Slurm or the driver calls `name`.

    `memory_gib` is None where the name leaves it open (`a100`, `gpu`), or names a MIG slice. Speeds
    are left to `with_speeds`.
    """
    model, size = _find(name)
    if model is None:
        return Gpu(memory_gib=None)
    if size is None:
        return Gpu(memory_gib=None, bf16=model.bf16)
    return Gpu(memory_gib=size.memory_gib, bf16=model.bf16, price=size.price)


def is_known(name: str) -> bool:
    """Whether the table has the model that `name` names."""
    return _find(name)[0] is not None


def with_speeds(name: str, gpu: Gpu) -> Gpu:
    """`gpu`, the type called `name`, with the table's speeds where it states none of its own.

    They stay None where the model is not known, and of a MIG slice. Of a model with memory of
    several speeds, whose size is not told, the slowest counts.
    """
    told = gpu.type or name
    model, size = _find(told)
    if model is None or _MIG.search(told.lower()):
        return gpu
    slowest = min(each.bandwidth for each in model.sizes.values())
    known: dict[str, Any] = {
        "tflops_half": model.half,
        "tflops_single": model.single,
        "bandwidth_gbs": size.bandwidth if size else slowest,
        "nvlink_gbs": model.nvlink,
        "pcie_gbs": model.pcie,
        "attainable_mfu": model.mfu,
    }
    missing = {field: value for field, value in known.items() if getattr(gpu, field) is None}
    return replace(gpu, **missing)


def _find(name: str) -> tuple[_Model | None, _Size | None]:
    """The model that `name` names, and which of its sizes where the name tells."""
    lowered = name.lower()
    words = {word for word in re.split(r"[^a-z0-9]+", lowered) if word}
    words |= {word.removeprefix("rtx") for word in words}
    model = next((each for key, each in _MODELS.items() if words.issuperset(key)), None)
    if model is None or _MIG.search(lowered):
        return model, None
    if words & _CARD and model.card is not None:
        model = model.card
    found = {int(match[1]) for match in map(_SIZE.fullmatch, words) if match}
    named = [size for size in found if size in model.sizes]
    if not found and not model.always_named:
        named = list(model.sizes)
    if len(named) != 1 or len(found) > 1:
        return model, None
    return model, model.sizes[named[0]]
