"""Runs where fitcheck-llm is installed: questions as JSON on stdin, MiB or null on stdout."""

import json
import sys
from typing import Any

from fitcheck import (  # type: ignore[import-not-found]
    ModelConfig,
    TrainingConfig,
    estimate,
    get_gpu,
)


def answer(question: dict[str, Any] | None) -> float | None:
    if question is None:
        return None
    try:
        model, training = ModelConfig(**question["model"]), TrainingConfig(**question["training"])
        return float(estimate(model, training, get_gpu("a100-80")).total_mib)
    except ValueError:
        return None


json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
