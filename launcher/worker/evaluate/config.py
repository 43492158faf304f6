"""The settings of a stage with `method: evaluate`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluateConfig:
    """How completions are sampled, and how certain the report is to be.

    Raises ValueError for a value outside its range.
    """

    max_completion_length: int = 512
    """Longest completion in tokens."""
    temperature: float = 1.0
    """Divides the logits before sampling; 0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Share of the probability that is sampled from; 1 samples from all tokens."""
    num_prompts: int | None = None
    """How many of the held-out rows are used, from the first; None uses all."""
    completion_column: str | None = "completion"
    """The data's own completions, text or messages, of which the perplexity is taken where the rows
    have them: of their first `max_completion_length` tokens. None takes none."""
    num_samples: int = 4
    """How many prompts the report shows with the answers side by side."""
    repetition_ngram: int = 3
    """Length of the n-grams whose repeats are counted, in tokens."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    bootstrap_samples: int = 2000
    """Resamples behind each interval of a mean."""

    def __post_init__(self) -> None:
        wrong = [
            f"`{name}` is {value}; it must be {words}"
            for name, value, right, words in (
                ("max_completion_length", self.max_completion_length, _positive, "at least 1"),
                ("temperature", self.temperature, _not_negative, "0 or more"),
                ("top_p", self.top_p, _share, "above 0 and at most 1"),
                ("num_prompts", self.num_prompts, _positive_or_none, "at least 1, or null"),
                ("num_samples", self.num_samples, _not_negative, "0 or more"),
                ("repetition_ngram", self.repetition_ngram, _positive, "at least 1"),
                ("confidence", self.confidence, _open_share, "between 0 and 1"),
                ("bootstrap_samples", self.bootstrap_samples, _positive, "at least 1"),
            )
            if not right(value)
        ]
        if wrong:
            raise ValueError("; ".join(wrong) + ".")


def _positive(value: float | None) -> bool:
    return value is not None and value >= 1


def _positive_or_none(value: float | None) -> bool:
    return value is None or value >= 1


def _not_negative(value: float | None) -> bool:
    return value is not None and value >= 0


def _share(value: float | None) -> bool:
    return value is not None and 0 < value <= 1


def _open_share(value: float | None) -> bool:
    return value is not None and 0 < value < 1
