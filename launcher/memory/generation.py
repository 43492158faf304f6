"""The phases in which models only write and read: rollouts, their scoring, evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.memory import activations as act
from launcher.memory.lengths import Lengths
from launcher.memory.models import Resident
from launcher.memory.states import exchange
from launcher.memory.types import Phase, Settings
from launcher.models.types import ModelShape
from launcher.recipe.types import Stage


def writing(
    name: str,
    stage: Stage,
    writer: Resident,
    base: Mapping[str, int],
    sequences: int,
    length: Lengths,
    settings: Settings,
) -> Phase:
    """`writer` answers `sequences` prompts at once; `base` is what else the GPU holds."""
    shape, width = writer.shape, 4 if stage.dtype == "float32" else 2
    gathered = _gathered((writer,), stage, settings)
    if settings.zero_stage == 3 and settings.gather_for_generation:
        gathered = {"gathered weights": width * writer.parameters}
    items = {
        **base,
        **gathered,
        "kv cache": act.cache(shape, sequences, length.total, stage.dtype),
        "activations": act.forward_work(shape, sequences * length.prompt, stage.dtype),
        # One row of logits a sequence, its float32 copy and the sampler's.
        "logits": sequences * shape.vocab * (width + 8),
    }
    return Phase(name, items)


def reading(
    name: str,
    stage: Stage,
    readers: tuple[Resident, ...],
    base: Mapping[str, int],
    length: Lengths,
    settings: Settings,
) -> Phase:
    """`readers` score the answers, each for itself, one micro-batch at a time."""
    tokens = settings.micro_batch * length.total
    items = {
        **base,
        **_gathered(readers, stage, settings),
        "activations": max(
            act.forward_work(reader.shape, tokens, stage.dtype) for reader in readers
        ),
        "logits": max(
            0
            if reader.role == "reward_model"
            else _logits(stage, reader.shape, length.completion, settings)
            for reader in readers
        ),
    }
    return Phase(name, items)


def _logits(stage: Stage, shape: ModelShape, completion: int, settings: Settings) -> int:
    """Evaluation keeps the logits of a batch, and float32 copies of one completion's; PPO has
    TRL's fused head where there is one."""
    tokens, width = settings.micro_batch * completion, 4 if stage.dtype == "float32" else 2
    if stage.method == "evaluate":
        return width * tokens * shape.vocab + 8 * completion * shape.vocab
    if settings.device == "cuda":
        return act.fused_logits(shape, tokens, trains_head=False)
    return (width + 4) * tokens * shape.vocab


def _gathered(models: tuple[Resident, ...], stage: Stage, settings: Settings) -> dict[str, int]:
    """What ZeRO-3 gathers of `models` layer by layer; there are no gradients to reduce."""
    found = exchange(models, stage.dtype, settings)
    return {name: size for name, size in found.items() if name != "buckets"}
