"""The work of a stage, whatever it runs on: how much arithmetic, on how many tokens, how often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from launcher.memory.lengths import Lengths, lengths, whole
from launcher.memory.models import Resident, residents, scores
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

ASSUMED_ROWS = 20_000
"""Rows of the data where the recipe does not say: only the ranking of allocations hangs on it."""
DEFAULT_EPOCHS = 3.0
"""`num_train_epochs` of transformers."""


@dataclass(frozen=True)
class Reader:
    """Arithmetic of one model's forward pass (FLOPs), and what generation reads of it (bytes)."""

    hidden: int
    layers: int
    products: int
    """A token through the blocks' matrices: two for a weight."""
    head: int
    """A token that is scored, through the LM head; 0 for a model with a score."""
    attention: int
    """A token for each token of context: scores and weighted sum, half of it masked."""
    window: int | None
    weights: int
    """Elements of all parameters."""
    cache_row: int
    """Elements of keys and values of one token."""

    def forward(self, tokens: float, context: float, scored: float) -> tuple[float, float]:
        """FLOPs of `tokens` in sequences of `context` tokens: products, and attention."""
        seen = context if self.window is None else min(context, 2.0 * self.window)
        return (
            tokens * self.products + scored * self.head,
            tokens * self.attention * seen,
        )


@dataclass(frozen=True)
class Work:
    """What a stage asks of its machines, step by step."""

    stage: Stage
    main: Reader
    others: tuple[Reader, ...]
    """Models that read along without training: reference (an adapter's base is one), reward
    model. Online once a rollout, offline with each micro-batch."""
    value: Reader | None
    """A value model of its own, trained beside the policy."""
    trained: int
    """Parameters."""
    adapters: bool
    packed: int
    """Quantized weights, to be unpacked in each pass."""
    parameters: int
    """Of all models on the GPUs."""
    batch: int
    """Rows (online: completions) of one optimizer step over all processes."""
    sequences_per_row: int
    length: Lengths
    """The longest."""
    mean: float | None
    """Tokens of a row's sequence (online: of a prompt) on average; None: not known."""
    online: bool
    trains: bool
    mini_batches: int
    """Optimizer steps that one pass over a rollout makes."""
    passes: int
    """Times that a rollout is trained on."""
    steps: int
    """Optimizer steps of the whole stage, as its trainer counts them. Evaluation: how often all
    rows are answered, which is once a candidate."""
    rows: int
    counted: bool
    """False: rows are not known, and `steps` is a guess to rank allocations by."""
    measured: bool
    """False: lengths are not known, and every row counts as the longest."""
    pads: bool = True
    """False: as if rows of all lengths could be packed, a bound of what any batch size takes."""

    @property
    def steps_a_round(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.mini_batches * self.passes

    def prompt(self, sequences: float) -> float:
        """Tokens that prompts of so many sequences are padded to."""
        many = sequences if self.pads else 1
        return padded(self.mean, self.length.prompt, many) if self.length.prompt else 0.0

    def context(self, sequences: float) -> float:
        """Tokens that so many sequences of one forward pass are padded to."""
        if self.length.prompt:
            return self.prompt(sequences) + self.length.completion
        return padded(self.mean, self.length.total, sequences if self.pads else 1)

    @property
    def tokens(self) -> float:
        """Tokens of a sequence without padding, as far as known; completions count whole."""
        longest = self.length.prompt or self.length.total
        mean = float(longest) if self.mean is None else min(self.mean, float(longest))
        return mean + (self.length.completion if self.length.prompt else 0)


def work_of(stage: Stage, shapes: Mapping[str, ModelShape], global_batch: int) -> Work:
    """The work of `stage` with `global_batch` rows (completions) a step.

    Steps are counted as the trainers count them. transformers:
    ⌈epochs × ⌈rows ÷ batch⌉⌉, where a pair is two rows of KTO's. Ours for PPO, a pass over N
    prompts: ⌊N ÷ (batch × num_mini_batches)⌋ × num_mini_batches × num_ppo_epochs; GRPO and RLOO
    alike, with
    `num_generations` completions of each prompt and `num_iterations` passes. `max_steps` goes
    before.
    """
    models = residents(stage, shapes)
    method = METHODS[stage.method]
    length = lengths(stage, models[0].shape)
    train, data = stage.train, stage.data
    rows = data.rows if data is not None else None
    if rows is not None and data is not None and data.pairs and method.unpairs:
        rows *= 2
    mean: float | None = data.mean_tokens if data is not None else None
    packing = bool(train.get("packing"))
    if packing:
        rows = math.ceil(rows * mean / length.total) if rows and mean else None
        mean = float(length.total)
    known = rows is not None
    rows = rows if rows is not None else ASSUMED_ROWS
    if not method.trains:
        known = known or "num_prompts" in train
        rows = min(rows, whole(train, "num_prompts", rows))
    mini_batches, passes = _rounds(stage, global_batch)
    stated = whole(train, "max_steps", 0)
    counted = stated > 0 or known
    if not method.trains:
        steps = max(1, len(stage.candidates))
    elif stated > 0:
        steps = stated
    else:
        steps = _steps(stage, rows, global_batch, mini_batches, passes)
    others = [_reader(each) for each in models[1:] if not each.trained]
    if _base_is_reference(stage, models):
        others.append(_reader(models[0]))
    return Work(
        stage=stage,
        main=_reader(models[0], heads=method.output != "score"),
        others=tuple(others),
        value=next((_reader(each) for each in models[1:] if each.trained), None),
        trained=sum(model.trained for model in models),
        adapters=stage.peft is not None,
        packed=models[0].packed if stage.peft is not None and stage.peft.quantization else 0,
        parameters=sum(model.parameters for model in models),
        batch=global_batch,
        sequences_per_row=method.sequences_per_row,
        length=length,
        mean=mean,
        online=method.online,
        trains=method.trains,
        mini_batches=mini_batches,
        passes=passes,
        steps=steps,
        rows=rows,
        counted=counted,
        measured=mean is not None,
    )


def _rounds(stage: Stage, batch: int) -> tuple[int, int]:
    """Mini-batches of a rollout, and how often each is trained on."""
    train = stage.train
    if stage.method == "ppo":
        return whole(train, "num_mini_batches", 1), whole(train, "num_ppo_epochs", 4)
    if not METHODS[stage.method].online:
        return 1, 1
    generated = whole(train, "generation_batch_size", batch)
    return max(1, generated // batch), whole(train, "num_iterations", 1)


def _steps(stage: Stage, rows: int, batch: int, mini_batches: int, passes: int) -> int:
    epochs = float(stage.train.get("num_train_epochs", DEFAULT_EPOCHS))
    method = METHODS[stage.method]
    if method.online and stage.method != "online_dpo":
        each = whole(stage.train, "num_generations", method.group)
        a_pass = rows * each // (batch * mini_batches) * mini_batches * passes
    else:
        a_pass = math.ceil(rows / batch)
    return max(1, math.ceil(epochs * a_pass))


def padded(mean: float | None, longest: int, sequences: float) -> float:
    """Tokens that the longest of `sequences` has, whose mean is `mean` and limit `longest`.

    Lengths of texts are skewed; as if they were exponential, the longest of m is the mean times
    1 + 1/2 + … + 1/m, up to the limit.
    """
    if mean is None:
        return float(longest)
    return min(float(longest), mean * _harmonic(max(1, round(sequences))))


@lru_cache(maxsize=4096)
def _harmonic(count: int) -> float:
    if count > 64:
        return math.log(count) + 0.5772156649 + 0.5 / count
    return sum(1 / k for k in range(1, count + 1))


def _reader(model: Resident, heads: bool = True) -> Reader:
    """`heads`: a model whose role gives no score has an LM head."""
    shape = model.shape
    q = shape.heads * shape.head_dim
    # Embeddings are looked up, and the head multiplies only what is scored.
    head = shape.vocab * shape.hidden
    own_head = 0 if shape.tied_embeddings else head
    blocks = shape.active_parameters - shape.embedding_parameters - own_head
    return Reader(
        hidden=shape.hidden,
        layers=shape.layers,
        products=2 * blocks,
        head=0 if scores(model.role) or not heads else 2 * head,
        attention=2 * shape.layers * q,
        window=shape.sliding_window,
        weights=model.parameters,
        cache_row=2 * shape.layers * shape.kv_heads * shape.head_dim,
    )


def _base_is_reference(stage: Stage, models: tuple[Resident, ...]) -> bool:
    """Whether an adapter's base reads as the reference, in a pass of its own."""
    if stage.peft is None or any(model.role == "reference" for model in models):
        return False
    return METHODS[stage.method].needs_reference(stage.train)
