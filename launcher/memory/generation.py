"""The phases in which models only write and read: rollouts, their scoring, evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.memory.block import Kind
from launcher.memory.lengths import Lengths, whole
from launcher.memory.passes import Batch, autocast_copies, merge, through, total
from launcher.memory.server import colocated_share
from launcher.memory.stack import width
from launcher.memory.types import Settings
from launcher.memory.walk import Items
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage
from launcher.recipe.vllm import mode


@dataclass(frozen=True)
class Vllm:
    """What vLLM takes of a GPU that also trains."""

    writes: bool = False
    all_phases: Items = field(default_factory=dict)
    rollout: Items = field(default_factory=dict)
    """What it takes while it writes, if it sleeps in between."""


def vllm_share(stage: Stage, settings: Settings) -> Vllm:
    """vLLM beside the trainer (TRL's `colocate`) takes a share of the whole GPU for as long as it
    does not sleep; as a server it has GPUs of its own."""
    found = mode(stage)
    if found != "colocate":
        return Vllm(writes=found is not None)
    taken = {"vllm": colocated_share(stage) * settings.device_bytes}
    if stage.train.get("vllm_enable_sleep_mode"):
        return Vllm(writes=True, rollout=taken)
    return Vllm(writes=True, all_phases=taken)


def rollout_sequences(stage: Stage, settings: Settings) -> int:
    """Completions that one process writes at once: those of a step, of several mini-batches (PPO),
    or of as many micro-batches as TRL's `steps_per_generation` or `generation_batch_size` say."""
    if stage.method == "online_dpo":
        # Each forward pass has its pairs written first.
        return settings.micro_batch * METHODS[stage.method].sequences_per_row
    total = whole(stage.train, "generation_batch_size", 0)
    if total:
        return max(1, total // settings.processes)
    steps = whole(stage.train, "steps_per_generation", settings.accumulation)
    return settings.micro_batch * steps * whole(stage.train, "num_mini_batches", 1)


def writing(writer: Kind, sequences: int, length: Lengths) -> Items:
    """`writer` answers `sequences` prompts at once: its cache, and one block's pass over all the
    prompts, or a row of logits for each sequence, with its float32 copy and the sampler's."""
    shape, stack = writer.shape, writer.stack
    size = width(stack.compute)
    row = 2 * shape.layers * shape.kv_heads * shape.head_dim * size
    window = shape.sliding_window or length.total
    prompts = through(writer, sequences * length.prompt, length.prompt)
    logits: Items = {"logits": float(sequences * shape.vocab * (size + 8))}
    if stack.autocast and writer.peft is None and stack.weights == "float32":
        logits["autocast copies"] = float(shape.embedding_parameters * size)
    return merge(
        (
            {"kv cache": float(sequences * min(length.total, window) * row)},
            autocast_copies(writer),
            max(prompts, logits, key=total),
        )
    )


def reading(reader: Kind, sequences: int, length: Lengths) -> Items:
    """`reader` scores `sequences` answers for an evaluation, which keeps the logits of a batch and
    float32 copies of one completion's."""
    shape, size = reader.shape, width(reader.stack.compute)
    batch = Batch(sequences, length.total, length.completion)
    trunk = through(reader, batch.tokens, length.total)
    logits = size * sequences * length.completion * shape.vocab
    return merge((trunk, {"logits": float(logits + 8 * length.completion * shape.vocab)}))
