"""Candidates side by side on the same held-out prompts.

One model is in memory at a time: each candidate writes its completions, then the reference reads
all of them, then the reward model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from launcher.records.evaluation import (
    REWARD,
    Answer,
    Candidate,
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
    measures: dict[str, float]


def evaluate(
    candidates: Mapping[str, str],
    *,
    baseline: str | None,
    reward_model: str | None,
    reference: str | None,
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, str],
    config: EvaluateConfig,
    tokenizer: Any,
    dtype: Any,
    device: Any,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None],
    deepspeed: Mapping[str, Any] | None = None,
    on_phase: Callable[[str], None] = lambda _phase: None,
) -> EvaluationResult:
    """Compare `candidates` (label → folder of a model or of an adapter) on the prompts of `rows`.

    Each candidate samples one completion a prompt from the same seed. `rows` have a column
    "prompt", text or messages; their other columns go to the functions of `scores` (label →
    `/abs/file.py:function`). The KL divergence to `reference` is the mean log-ratio on the sampled
    tokens at the sampling temperature (at 1 for greedy decoding). Without a `reward_model` there is
    no measure "reward"; without a `baseline` the first candidate is it. `on_progress(done, total)`
    counts batches, `on_phase` is told what begins: `generate`, `score`, `reward`, `compare`. In a
    process group, each rank takes its share of the rows, and all return the same;
    with `deepspeed`, a ZeRO-3 configuration, the ranks also share each model's weights.

    Raises UsageError for a model of the wrong kind and for a score function that cannot be used,
    ValueError for no rows or a baseline that is no candidate.
    """
    rows = rows[: config.num_prompts]
    if not rows:
        raise ValueError("there are no held-out prompts")
    baseline = baseline or next(iter(candidates))
    if baseline not in candidates:
        raise ValueError(f"the baseline {baseline} is none of {', '.join(candidates)}")
    # First, so that a slip in a score file shows before the models have worked.
    functions = {label: score.load(reference) for label, reference in scores.items()}
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    own = list(rows[rank::world])
    # A row too many, never read again, where the others have one more: ZeRO-3 wants equal turns.
    own += [rows[0]] * (-(-len(rows) // world) - len(own))
    judge = _Judge(own, config, tokenizer, dtype, device, batch_size, seed + rank, deepspeed)
    others = {label for label, folder in candidates.items() if folder != reference}
    judge.count(
        per_batch=len(candidates) * (1 if reward_model is None else 2)
        + (2 * len(others) if reference is not None else 0),
        on_progress=on_progress,
    )
    written: dict[str, list[Completion]] = {}
    ratios: dict[str, list[float] | None] = dict.fromkeys(candidates)
    on_phase("generate")
    for label, folder in candidates.items():
        written[label], ratios[label] = judge.write(
            folder, with_log_probabilities=reference is not None and label in others
        )
    if reference is not None:
        on_phase("score")
        judge.subtract_reference(reference, written, ratios)
    rewards: dict[str, list[float]] = {}
    if reward_model is not None:
        on_phase("reward")
        rewards = judge.rewards(reward_model, written)
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
                    label: Answer(text=judged[label][i].text, measures=judged[label][i].measures)
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
        config: EvaluateConfig,
        tokenizer: Any,
        dtype: Any,
        device: Any,
        batch_size: int,
        seed: int,
        deepspeed: Mapping[str, Any] | None,
    ) -> None:
        self._rows = rows
        self._prompts = [row["prompt"] for row in rows]
        self._config = config
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._seed = seed
        self._deepspeed = deepspeed

    def count(self, per_batch: int, on_progress: Callable[[int, int], None]) -> None:
        """Report each batch from here on; each is worked through `per_batch` times."""
        total = -(-len(self._rows) // self._batch_size) * per_batch
        done = 0

        def on_batch() -> None:
            nonlocal done
            done += 1
            on_progress(done, total)

        self._on_batch = on_batch

    def write(
        self, folder: str, with_log_probabilities: bool
    ) -> tuple[list[Completion], list[float] | None]:
        """The completions of the model in `folder`, and what it gives them where that is asked."""
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
            if not with_log_probabilities:
                return completions, None
            return completions, self._log_probabilities(model, completions)

    def subtract_reference(
        self,
        folder: str,
        written: Mapping[str, list[Completion]],
        ratios: dict[str, list[float] | None],
    ) -> None:
        """Turn log-probabilities into log-ratios to the reference; the reference's own are zero."""
        others = {label: own for label, own in ratios.items() if own is not None}
        ratios.update({label: [0.0] * len(written[label]) for label in ratios.keys() - others})
        if not others:
            return
        with self._policy(folder) as model:
            for label, own in others.items():
                given = self._log_probabilities(model, written[label])
                ratios[label] = [a - b for a, b in zip(own, given, strict=True)]

    def rewards(
        self, folder: str, written: Mapping[str, list[Completion]]
    ) -> dict[str, list[float]]:
        """Label → the reward model's score of each completion."""
        pad = self._tokenizer.pad_token_id

        def load() -> Any:
            return models.load_reward_model(folder, self._dtype, pad)

        with placed(load, self._device, self._deepspeed) as model:
            return {
                label: score.by_reward_model(
                    model,
                    self._tokenizer,
                    self._prompts,
                    completions,
                    batch_size=self._batch_size,
                    on_batch=self._on_batch,
                )
                for label, completions in written.items()
            }

    def _policy(self, folder: str) -> AbstractContextManager[Any]:
        return placed(
            lambda: models.load_causal(folder, self._dtype), self._device, self._deepspeed
        )

    def _log_probabilities(self, model: Any, completions: Sequence[Completion]) -> list[float]:
        return generate.log_probabilities(
            model,
            completions,
            self._tokenizer.pad_token_id,
            self._config.temperature or 1.0,
            batch_size=self._batch_size,
            on_batch=self._on_batch,
        )

    def judged(
        self,
        label: str,
        written: Mapping[str, list[Completion]],
        ratios: Mapping[str, list[float] | None],
        rewards: Mapping[str, list[float]],
        functions: Mapping[str, score.Score],
    ) -> list[_Judged]:
        completions = written[label]
        texts = [completion.text for completion in completions]
        measured = ({REWARD: rewards[label]} if label in rewards else {}) | {
            name: score.by_function(name, function, self._rows, texts)
            for name, function in functions.items()
        }
        ratio = ratios[label]
        return [
            _Judged(
                text=completion.text,
                length=len(completion.ids),
                ended=completion.ended,
                repetition=statistics.repetition(completion.ids, self._config.repetition_ngram),
                log_ratio=None if ratio is None else ratio[i],
                measures={name: values[i] for name, values in measured.items()},
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
    measures = {name: [one.measures[name] for one in own] for name in own[0].measures}
    against = {name: [one.measures[name] for one in theirs] for name in measures}
    ratios = [one.log_ratio for one in own if one.log_ratio is not None]
    return Candidate(
        label=label,
        model=folder,
        measures={
            name: statistics.bootstrap(values, *certainty) for name, values in measures.items()
        },
        against_baseline={}
        if label == baseline
        else {
            name: statistics.compare(values, against[name], *certainty)
            for name, values in measures.items()
        },
        kl_token=sum(ratios) / sum(one.length for one in own) if ratios else None,
        kl_sequence=statistics.bootstrap(ratios, *certainty) if ratios else None,
        length=statistics.mean([one.length for one in own]),
        repetition=statistics.mean([one.repetition for one in own]),
        eos_rate=statistics.mean([float(one.ended) for one in own]),
    )


def _words(prompt: Any) -> str:
    """The prompt as a reader of the report sees it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
