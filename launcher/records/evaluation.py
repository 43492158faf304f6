"""The result of an `evaluate` stage: what the node measured, and what the report prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.records import files
from launcher.records.paths import StagePaths

REWARD = "reward"
"""The measure that the reward model gives; every other one is a score function of the recipe."""


@dataclass(frozen=True)
class Interval:
    """A mean over the held-out prompts with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One candidate against the baseline on the same prompts, by one measure."""

    win_rate: Interval
    """Share of prompts where it scores higher; a tie counts as half."""
    difference: Interval
    """Mean of its score less the baseline's, prompt by prompt."""


@dataclass(frozen=True)
class Candidate:
    label: str
    model: str
    measures: Mapping[str, Interval]
    """`reward` and each score function → its value over the prompts that it could judge."""
    against_baseline: Mapping[str, Comparison]
    """Measure → comparison on the prompts where both have it; empty for the baseline itself."""
    kl_token: float | None
    """Mean log-ratio to the reference per sampled token (nats); None without a reference."""
    kl_sequence: Interval | None
    """Mean log-ratio to the reference per completion (nats)."""
    length: float
    """Mean length of a completion in tokens, the end token included."""
    repetition: float
    """Mean share of n-grams that a completion had before, 0 to 1."""
    eos_rate: float
    """Share of completions that end by themselves."""
    perplexity: Interval | None = None
    """e to the mean −log p (nats) of a token of the data's own completions; None where it has
    none."""


@dataclass(frozen=True)
class Answer:
    text: str
    measures: Mapping[str, float]
    """Without those that had nothing to say of it."""


@dataclass(frozen=True)
class Sample:
    """One held-out prompt and what each candidate made of it."""

    prompt: str
    answers: Mapping[str, Answer]
    """Label → answer, in the order of the candidates."""


@dataclass(frozen=True)
class EvaluationResult:
    baseline: str
    """The label that the others are compared with."""
    reference: str | None
    reward_model: str | None
    prompts: int
    seed: int
    confidence: float
    ngram: int
    """Length of the n-grams that `repetition` counts."""
    candidates: tuple[Candidate, ...]
    samples: tuple[Sample, ...]
    schema: int = 1


def figures(result: EvaluationResult) -> dict[str, float]:
    """What a gate can name: `LABEL/MEASURE`, `LABEL/MEASURE/win_rate`, and `LABEL/` with `length`,
    `repetition`, `eos_rate`, `kl` (nats a token) and `perplexity`."""
    found: dict[str, float] = {}
    for each in result.candidates:
        own: dict[str, float | None] = {
            "length": each.length,
            "repetition": each.repetition,
            "eos_rate": each.eos_rate,
            "kl": each.kl_token,
            "perplexity": None if each.perplexity is None else each.perplexity.mean,
            **{f"{name}/win_rate": c.win_rate.mean for name, c in each.against_baseline.items()},
            # Last: a score of one of these names goes first.
            **{name: interval.mean for name, interval in each.measures.items()},
        }
        found |= {f"{each.label}/{name}": v for name, v in own.items() if v is not None}
    return found


def document(result: EvaluationResult) -> dict[str, Any]:
    """The result as it stands in JSON."""
    return asdict(result)


def write(stage: StagePaths, result: EvaluationResult) -> None:
    """Leave the result in the stage's folder."""
    files.write_json(stage.evaluation, result)


def read(stage: StagePaths) -> EvaluationResult | None:
    """The result that the stage left; None where it left none."""
    return files.read_json(stage.evaluation, EvaluationResult)
