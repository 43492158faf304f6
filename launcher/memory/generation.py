"""The phases in which models only write and read: rollouts, their scoring, evaluation."""

from __future__ import annotations

from launcher.memory.block import Kind
from launcher.memory.lengths import Lengths
from launcher.memory.passes import Batch, merge
from launcher.memory.stack import width
from launcher.memory.walk import Items
from launcher.memory.walk import reading as block


def writing(writer: Kind, sequences: int, length: Lengths) -> Items:
    """`writer` answers `sequences` prompts at once: its cache, one block's pass over all prompts,
    and for each sequence a row of logits, its float32 copy and the sampler's."""
    shape = writer.shape
    size = width(writer.stack.compute)
    row = 2 * shape.layers * shape.kv_heads * shape.head_dim * size
    prompts = block(writer).highest(sequences * length.prompt, length.prompt)
    return merge(
        (
            prompts,
            {
                "kv cache": float(sequences * length.total * row),
                "logits": float(sequences * shape.vocab * (size + 8)),
            },
        )
    )


def reading(reader: Kind, sequences: int, length: Lengths) -> Items:
    """`reader` scores `sequences` answers for an evaluation, which keeps the logits of a batch and
    float32 copies of one completion's."""
    shape, size = reader.shape, width(reader.stack.compute)
    batch = Batch(sequences, length.total, length.completion)
    trunk = block(reader).highest(batch.tokens, length.total)
    logits = size * sequences * length.completion * shape.vocab
    return merge((trunk, {"logits": float(logits + 8 * length.completion * shape.vocab)}))
