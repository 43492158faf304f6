"""LitGPT: its own models and loop, bfloat16 throughout, adapters too.

github.com/Lightning-AI/litgpt: `tutorials/resource-tables.md` (October 2023; rows as long as the
longest of Alpaca; r 8 on queries and values) and `config_hub/finetune` (rows cut at 512 tokens; the
YAML files tell rank, layers and devices: on the machine with four GPUs most of them use one).
Activations are checkpointed under FSDP only. Figures are decimal GB of `max_memory_allocated`; the
table holds them in GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.memory_rows import notes
from benchmarks.memory_rows.adapters import ATTENTION, MLP, Adapter
from benchmarks.memory_rows.case import Case, Unknowable
from benchmarks.memory_rows.models import plain
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import common
from launcher.memory.stack import Stack
from launcher.models.types import ModelShape
from launcher.recipe.types import Dtype

_QV = ("q_proj", "v_proj")
_EVERY = (*ATTENTION, *MLP)


@dataclass(frozen=True)
class Recipe:
    """What the YAML files of a model say beside the README's columns."""

    r: int = 32
    targets: tuple[str, ...] = _QV
    quantized_r: int | None = None
    batch: int = 8
    """`global_batch_size` of LoRA's files, on one device."""
    full_batch: int = 64
    full_devices: int = 1


_RECIPES: dict[str, Recipe] = {
    "gemma2b": Recipe(8, _EVERY, quantized_r=16, batch=6, full_batch=16, full_devices=4),
    "gemma22b": Recipe(8, _EVERY, quantized_r=16, batch=6),
    "gemma7b": Recipe(16, _EVERY, batch=6),
    "gemma29b": Recipe(16, _EVERY, batch=6),
    "llama27b": Recipe(full_devices=4),
    "llama38b": Recipe(full_devices=4),
    "llama318b": Recipe(full_devices=4),
    "phi2": Recipe(8, _EVERY, full_batch=8, full_devices=2),
    "phi3": Recipe(8, _EVERY, full_batch=8),
    "phi3mini": Recipe(8, _EVERY, full_batch=8),
    "stablelmbasealpha3b": Recipe(full_batch=8, full_devices=2),
    "tinyllama": Recipe(32, _EVERY, full_batch=32),
    "tinyllama11b": Recipe(32, _EVERY, full_batch=32),
}
"""Adapters of the seven-layer recipes sit on the head too, which is not counted."""
_TABLES_BATCH = 128
"""Sequences of a step in the resource tables."""


def config_hub(row: Row) -> Case:
    """A row of `config_hub/finetune/README.md`."""
    shape, given = common.read(row)
    recipe = _RECIPES.get(plain(row.model), Recipe())
    devices = recipe.full_devices if given.full else 1
    if not given.full:
        rank = recipe.quantized_r if given.base != "dense" else None
        given = replace(given, r=rank or recipe.r, targets=recipe.targets)
    told = replace(row, n_gpus=devices, sharding="FSDP" if devices > 1 else "none")
    batch = recipe.full_batch if given.full else recipe.batch
    # Its figures of five models ask for inputs kept twice as wide as those of the tables.
    return _case(told, shape, given, batch, keeps="float32")


def resource_tables(row: Row) -> Case:
    """A row of `tutorials/resource-tables.md`."""
    shape, given = common.read(row)
    return _case(row, shape, given, _TABLES_BATCH, keeps="bfloat16")


def _case(row: Row, shape: ModelShape, given: Adapter, batch: int, keeps: Dtype) -> Case:
    """`keeps`: in what precision bitsandbytes, before 0.43, keeps quantized layers' inputs."""
    # Its models have a head of their own, whatever the original ties.
    shape = replace(shape, tied_embeddings=False, activation="kernel", dropout=False)
    if shape.family == "gpt_neox":
        # Its adapters sit on parts of the joint projection, which `joint_qkv` says.
        shape = replace(shape, family="", embedding_dropout=False)
    weights, autocast = notes.precision(row)
    sharded = notes.sharding(row).kind == "fsdp"
    stack = Stack(
        weights=weights,
        compute=weights,
        autocast=autocast,
        adapters=weights,
        # Quantized runs take bitsandbytes' paged AdamW, others torch's.
        optimizer="adamw_torch" if given.base == "dense" else "paged_adamw_32bit",
        loss="stock" if given.full else "pieces",
        sharding="fsdp" if sharded else "zero",
        # Keys and values are parts of one projection, and expanded to all heads.
        joint_qkv=True,
        repeated_heads=True,
        shared_units=True,
        quantized_keeps=keeps,
        quantized_head=given.base != "dense",
    )
    gpus, micro, _ = notes.needed(row)
    accumulation = max(1, batch // (gpus * micro))
    placed = common.settings(row, accumulation=accumulation, checkpointing=sharded)
    _consistent(row, shape, given)
    return common.case(row, shape, given, stack, placed, targets=_QV, dropout=0.05)


def _consistent(row: Row, shape: ModelShape, given: Adapter) -> None:
    """Full training keeps weights, gradients and two moments, 8 bytes a parameter in bfloat16: a
    figure below that was not measured with what the recipe says. Raises Unknowable."""
    if not given.full or row.n_gpus != 1 or row.peak_gib is None:
        return
    states = 8 * shape.parameters / 2**30
    if row.peak_gib < states:
        raise Unknowable(
            f"the figure, {row.peak_gib:.1f} GiB, is below weights, gradients and moments of the"
            f" stated AdamW ({states:.1f} GiB), so the recipe is not what ran"
        )
