"""Candidates side by side on the same held-out prompts.

One model is in memory at a time: each candidate writes its completions, then the reference reads
all of them, then the reward model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from launcher.errors import UsageError
from launcher.recipe.types import Score
from launcher.records.evaluation import (
    REWARD,
    Answer,
    Candidate,
    Comparison,
    EvaluationResult,
    Sample,
)
from launcher.worker import models
from launcher.worker.evaluate import generate, score, statistics
from launcher.worker.evaluate.config import EvaluateConfig
from launcher.worker.evaluate.generate import Completion
from launcher.worker.evaluate.place import placed


@dataclass(frozen=True)
class _Judged:
    """One completion and all that was measured of it."""

    text: str
    length: int
    ended: bool
    repetition: float
    log_ratio: float | None
    measures: dict[str, float | None]
    given: tuple[float, int]
    """Log-probability (nats) and tokens of the data's own completion."""


@dataclass(frozen=True)
class _Written:
    """What one candidate made of the rows, and what it makes of the data's own completions."""

    completions: list[Completion]
    log_probabilities: list[float] | None
    given: list[tuple[float, int]]


def evaluate(
    candidates: Mapping[str, str],
    *,
    baseline: str | None,
    reward_model: str | None,
    reference: str | None,
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Score],
    config: EvaluateConfig,
    tokenizer: Any,
    dtype: Any,
    device: Any,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None],
    deepspeed: Mapping[str, Any] | None = None,
    on_phase: Callable[[str], None] = lambda _phase: None,
    copy_of: Callable[[str], Path] = Path,
    trust_remote_code: bool = False,
) -> EvaluationResult:
    """Compare `candidates` (label → folder of a model or of an adapter) on the prompts of `rows`.

    Each candidate samples one completion a prompt from the same seed. `rows` have a column
    "prompt", text or messages; their other columns go to the functions of `scores`, of whose files
    `copy_of` gives the run's copies. The KL
    divergence to `reference` is the mean log-ratio on the sampled tokens at the sampling
    temperature (at 1 for greedy decoding). Without a `reward_model` there is no measure "reward";
    without a `baseline` the first candidate is it. `on_progress(done, total)` counts batches,
    `on_phase` is told what begins: `generate`, `score`, `reward`, `compare`. In a process
    group, each rank takes its share of the rows, and all return the same;
    with `deepspeed`, a ZeRO-3 configuration, the ranks also share each model's weights.

    Raises UsageError for a model of the wrong kind or vocabulary and for a score function that
    cannot be used, ValueError for no rows or a baseline that is no candidate.
    """
    rows = rows[: config.num_prompts]
    if not rows:
        raise ValueError("there are no held-out prompts")
    baseline = baseline or next(iter(candidates))
    if baseline not in candidates:
        raise ValueError(f"the baseline {baseline} is none of {', '.join(candidates)}")
    # First, so that a slip in a score file shows before the models have worked.
    functions = {
        label: score.function(label, each, rows, copy_of) for label, each in scores.items()
    }
    loads = {"trust_remote_code": trust_remote_code}
    for folder in dict.fromkeys([*candidates.values(), *([reference] if reference else [])]):
        models.check_tokens(folder, tokenizer, **loads)
    reader = reward_model and score.reader(
        reward_model, tokenizer, talks=not isinstance(rows[0]["prompt"], str), **loads
    )
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    own = list(rows[rank::world])
    # A row too many, never read again, where the others have one more: ZeRO-3 wants equal turns.
    own += [rows[0]] * (-(-len(rows) // world) - len(own))
    column = config.completion_column
    # Of all rows, so that every rank has as many turns.
    column = column if any(row.get(column or "") for row in rows) else None
    judge = _Judge(
        own, column, config, tokenizer, dtype, device, batch_size, seed + rank, deepspeed, loads
    )
    others = {label for label, folder in candidates.items() if folder != reference}
    judge.count(
        per_batch=len(candidates) * (1 + (reward_model is not None) + judge.reads_data)
        + (2 * len(others) if reference is not None else 0),
        on_progress=on_progress,
    )
    written: dict[str, _Written] = {}
    ratios: dict[str, list[float] | None] = dict.fromkeys(candidates)
    on_phase("generate")
    for label, folder in candidates.items():
        written[label] = judge.write(
            folder, with_log_probabilities=reference is not None and label in others
        )
        ratios[label] = written[label].log_probabilities
    if reference is not None:
        on_phase("score")
        judge.subtract_reference(reference, written, ratios)
    rewards: dict[str, list[float]] = {}
    if reward_model is not None:
        on_phase("reward")
        rewards = judge.rewards(reward_model, reader, written)
    on_phase("compare")
    judged = {
        label: _gathered(judge.judged(label, written, ratios, rewards, functions), len(rows), world)
        for label in candidates
    }
    return EvaluationResult(
        baseline=baseline,
        reference=reference,
        reward_model=reward_model,
        prompts=len(rows),
        seed=seed,
        confidence=config.confidence,
        ngram=config.repetition_ngram,
        candidates=tuple(
            _summary(label, folder, judged, baseline, config, seed)
            for label, folder in candidates.items()
        ),
        samples=tuple(
            Sample(
                prompt=_words(row["prompt"]),
                answers={
                    label: Answer(
                        text=judged[label][i].text,
                        measures={
                            name: value
                            for name, value in judged[label][i].measures.items()
                            if value is not None
                        },
                    )
                    for label in candidates
                },
            )
            for i, row in enumerate(rows[: config.num_samples])
        ),
    )


class _Judge:
    """This rank's rows, and how models work through them."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        column: str | None,
        config: EvaluateConfig,
        tokenizer: Any,
        dtype: Any,
        device: Any,
        batch_size: int,
        seed: int,
        deepspeed: Mapping[str, Any] | None,
        loads: Mapping[str, bool],
    ) -> None:
        self._rows = rows
        self._loads = loads
        self._given = (
            []
            if column is None
            else [
                generate.given(
                    row["prompt"], row.get(column), tokenizer, config.max_completion_length
                )
                for row in rows
            ]
        )
        self._prompts = [row["prompt"] for row in rows]
        self._config = config
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._seed = seed
        self._deepspeed = deepspeed

    @property
    def reads_data(self) -> bool:
        """Whether the data has completions of its own."""
        return bool(self._given)

    def count(self, per_batch: int, on_progress: Callable[[int, int], None]) -> None:
        """Report each batch from here on; each is worked through `per_batch` times."""
        total = -(-len(self._rows) // self._batch_size) * per_batch
        done = 0

        def on_batch() -> None:
            nonlocal done
            done += 1
            on_progress(done, total)

        self._on_batch = on_batch

    def write(self, folder: str, with_log_probabilities: bool) -> _Written:
        """The completions of the model in `folder`, what it gives them where that is asked, and
        what it gives the data's own."""
        with self._policy(folder) as model:
            completions = generate.generate(
                model,
                self._tokenizer,
                self._prompts,
                self._config,
                batch_size=self._batch_size,
                seed=self._seed,
                synced=self._deepspeed is not None,
                on_batch=self._on_batch,
            )
            own = self._log_probabilities(model, completions) if with_log_probabilities else None
            # As the data has them, whatever the temperature of sampling.
            data = self._log_probabilities(model, self._given, temperature=1.0)
            sizes = [len(each.ids) for each in self._given]
            return _Written(completions, own, list(zip(data, sizes, strict=True)))

    def subtract_reference(
        self,
        folder: str,
        written: Mapping[str, _Written],
        ratios: dict[str, list[float] | None],
    ) -> None:
        """Turn log-probabilities into log-ratios to the reference; the reference's own are zero."""
        others = {label: own for label, own in ratios.items() if own is not None}
        ratios.update({label: [0.0] * len(self._rows) for label in ratios.keys() - others})
        if not others:
            return
        with self._policy(folder) as model:
            for label, own in others.items():
                given = self._log_probabilities(model, written[label].completions)
                ratios[label] = [a - b for a, b in zip(own, given, strict=True)]

    def rewards(
        self, folder: str, reader: Any, written: Mapping[str, _Written]
    ) -> dict[str, list[float]]:
        """Label → the reward model's score of each completion, which it reads with `reader`."""
        pad = reader.pad_token_id

        def load() -> Any:
            return models.load_reward_model(folder, self._dtype, pad, **self._loads)

        with placed(load, self._device, self._deepspeed) as model:
            return {
                label: score.by_reward_model(
                    model,
                    reader,
                    self._prompts,
                    each.completions,
                    written_with=self._tokenizer,
                    batch_size=self._batch_size,
                    on_batch=self._on_batch,
                )
                for label, each in written.items()
            }

    def _policy(self, folder: str) -> AbstractContextManager[Any]:
        def load() -> Any:
            return models.load_causal(folder, self._dtype, **self._loads)

        return placed(load, self._device, self._deepspeed)

    def _log_probabilities(
        self, model: Any, completions: Sequence[Completion], temperature: float | None = None
    ) -> list[float]:
        return generate.log_probabilities(
            model,
            completions,
            self._tokenizer.pad_token_id,
            temperature or self._config.temperature or 1.0,
            batch_size=self._batch_size,
            on_batch=self._on_batch,
        )

    def judged(
        self,
        label: str,
        written: Mapping[str, _Written],
        ratios: Mapping[str, list[float] | None],
        rewards: Mapping[str, list[float]],
        functions: Mapping[str, score.Function],
    ) -> list[_Judged]:
        completions = written[label].completions
        measured: dict[str, Sequence[float | None]] = {}
        if label in rewards:
            measured[REWARD] = rewards[label]
        measured |= {name: judge(self._rows, completions) for name, judge in functions.items()}
        given = written[label].given or [(0.0, 0)] * len(completions)
        ratio = ratios[label]
        return [
            _Judged(
                text=completion.text,
                length=len(completion.ids),
                ended=completion.ended,
                repetition=statistics.repetition(completion.ids, self._config.repetition_ngram),
                log_ratio=None if ratio is None else ratio[i],
                measures={name: values[i] for name, values in measured.items()},
                given=given[i],
            )
            for i, completion in enumerate(completions)
        ]


def _gathered(own: list[_Judged], rows: int, world: int) -> list[_Judged]:
    """The rows of all ranks in the order of the data set: rank r has rows r, r + world, …"""
    if world == 1:
        return own
    shares: list[Any] = [None] * world
    dist.all_gather_object(shares, own)
    return [shares[i % world][i // world] for i in range(rows)]


def _summary(
    label: str,
    folder: str,
    judged: Mapping[str, list[_Judged]],
    baseline: str,
    config: EvaluateConfig,
    seed: int,
) -> Candidate:
    own, theirs = judged[label], judged[baseline]
    certainty = (config.confidence, config.bootstrap_samples, seed)
    measures = {name: _values(label, name, own) for name in own[0].measures}
    ratios = [one.log_ratio for one in own if one.log_ratio is not None]
    given = [one.given for one in own if one.given[1]]
    return Candidate(
        label=label,
        model=folder,
        measures={
            name: statistics.bootstrap(values, *certainty) for name, values in measures.items()
        },
        against_baseline={} if label == baseline else _compared(own, theirs, certainty),
        kl_token=sum(ratios) / sum(one.length for one in own) if ratios else None,
        kl_sequence=statistics.bootstrap(ratios, *certainty) if ratios else None,
        length=statistics.mean([one.length for one in own]),
        repetition=statistics.mean([one.repetition for one in own]),
        eos_rate=statistics.mean([float(one.ended) for one in own]),
        perplexity=statistics.perplexity(given, *certainty) if given else None,
    )


def _values(label: str, name: str, judged: list[_Judged]) -> list[float]:
    values = [value for one in judged if (value := one.measures[name]) is not None]
    if not values:
        raise UsageError(
            f"the score {name} gave None for every completion of {label}",
            hint="return a number for those that can be judged",
        )
    return values


def _compared(
    own: list[_Judged], theirs: list[_Judged], certainty: tuple[float, int, int]
) -> dict[str, Comparison]:
    """Measure → comparison, on the prompts where both have it."""
    found: dict[str, Comparison] = {}
    for name in own[0].measures:
        pairs = [
            (a, b)
            for one, other in zip(own, theirs, strict=True)
            if (a := one.measures[name]) is not None and (b := other.measures[name]) is not None
        ]
        if pairs:
            ours, others = zip(*pairs, strict=True)
            found[name] = statistics.compare(ours, others, *certainty)
    return found


def _words(prompt: Any) -> str:
    """The prompt as a reader of the report sees it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
