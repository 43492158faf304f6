"""Evaluation of real, tiny models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from launcher.errors import UsageError
from launcher.recipe.types import Score
from launcher.records.evaluation import Candidate, EvaluationResult
from launcher.worker.evaluate.config import EvaluateConfig
from launcher.worker.evaluate.evaluate import evaluate
from launcher.worker.evaluate.generate import generate, log_probabilities
from tests.train.tiny_models import BASE, save_policy

WORDS = ("one", "two three", "four five six", "seven", "eight nine", "ten", "red", "blue white")
ROWS = [
    {"prompt": [{"role": "user", "content": f"Say backwards: {words}"}], "wanted": words}
    for words in WORDS
]
CONFIG = EvaluateConfig(max_completion_length=12, num_samples=2, bootstrap_samples=50)

LENGTH_RULE = """
def score(prompts, completions, wanted, **columns):
    assert prompts[0][0]["role"] == "user" and completions[0][0]["role"] == "assistant"
    assert len(prompts) == len(completions) == len(wanted)
    return [len(words) for words in wanted]

def short(prompts, completions, **columns):
    return [1.0]
"""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, str]:
    """A policy beside the base, an adapter, and a reward model, each with weights of its own."""
    root = tmp_path_factory.mktemp("models")
    save_policy(root / "policy")
    adapter = get_peft_model(
        AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32),
        LoraConfig(
            task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False
        ),
    )
    adapter.save_pretrained(root / "adapter")
    reward = AutoModelForSequenceClassification.from_pretrained(
        BASE, num_labels=1, dtype=torch.float32
    )
    reward.config.pad_token_id = tokenizer.pad_token_id
    reward.save_pretrained(root / "reward")
    tokenizer.save_pretrained(root / "reward")
    (root / "rule.py").write_text(LENGTH_RULE)
    return {name: str(root / name) for name in ("policy", "adapter", "reward", "rule.py")}


@pytest.fixture(scope="module")
def run(tokenizer: Any, folders: dict[str, str]) -> Callable[..., EvaluationResult]:
    def run(candidates: dict[str, str], **changes: Any) -> EvaluationResult:
        keywords: dict[str, Any] = {
            "baseline": next(iter(candidates)),
            "reward_model": folders["reward"],
            "reference": BASE,
            "rows": ROWS,
            "scores": {},
            "config": CONFIG,
            "tokenizer": tokenizer,
            "dtype": torch.float32,
            "device": "cpu",
            "batch_size": 3,
            "seed": 11,
            "on_progress": lambda done, total: None,
            **changes,
        }
        return evaluate(candidates, **keywords)

    return run


def only(result: EvaluationResult, label: str) -> Candidate:
    return next(candidate for candidate in result.candidates if candidate.label == label)


def test_candidates_are_measured_against_baseline_and_reference(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    progress: list[tuple[int, int]] = []
    result = run(
        {"base": BASE, "policy": folders["policy"], "adapter": folders["adapter"]},
        scores={"rule": Score(f"{folders['rule.py']}:score")},
        on_progress=lambda done, total: progress.append((done, total)),
    )
    base, policy, adapter = result.candidates
    assert [c.label for c in result.candidates] == ["base", "policy", "adapter"]
    assert base.kl_token == 0.0 and base.against_baseline == {}
    assert policy.kl_token is not None and policy.kl_token > 0.001
    assert adapter.kl_token != 0.0, "the adapter is applied"
    assert policy.against_baseline["rule"].difference.mean == 0.0
    assert policy.against_baseline["rule"].win_rate.mean == 0.5
    assert policy.measures["rule"].mean == sum(map(len, WORDS)) / len(WORDS)
    assert 1 <= policy.length <= 12 and 0 <= policy.eos_rate <= 1
    assert [sample.prompt for sample in result.samples] == [
        "Say backwards: one",
        "Say backwards: two three",
    ]
    assert progress[-1] == (len(progress), len(progress)), "the count ends at its total"


def test_the_same_seed_gives_the_same_result(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    candidates = {"base": BASE, "policy": folders["policy"]}
    assert run(candidates) == run(candidates)
    assert run(candidates) != run(candidates, seed=12)


def test_a_model_beside_itself_is_a_tie_on_every_prompt(
    run: Callable[..., EvaluationResult],
) -> None:
    copy = only(run({"base": BASE, "again": BASE}), "again")
    assert copy.against_baseline["reward"].win_rate.mean == 0.5
    assert copy.against_baseline["reward"].difference.high == 0.0


def test_padding_changes_no_log_probability(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    prompts = [row["prompt"] for row in ROWS]
    written = generate(
        model, tokenizer, prompts, CONFIG, batch_size=8, seed=3, on_batch=lambda: None
    )
    together = log_probabilities(
        model, written, tokenizer.pad_token_id, 1.0, batch_size=8, on_batch=lambda: None
    )
    for completion, found in zip(written, together, strict=True):
        ids = torch.tensor([completion.prompt_ids + completion.ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(completion.prompt_ids) - 1 : -1]
        alone = torch.log_softmax(logits, dim=-1)[range(len(completion.ids)), completion.ids].sum()
        assert math.isclose(found, float(alone), abs_tol=1e-4)


def test_a_policy_in_place_of_a_reward_model_is_refused(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="is not a reward model"):
        run({"base": BASE}, reward_model=folders["policy"])


def test_a_reward_model_in_place_of_a_policy_is_refused(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="is a reward model"):
        run({"base": folders["reward"]})


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("/nowhere/rule.py:score", "there is no score file /nowhere/rule.py"),
        ("{rule}:scor", "has no function scor"),
        ("{rule}:short", "gave 1 values for 8 completions"),
    ],
)
def test_a_score_that_cannot_be_used_is_named(
    run: Callable[..., EvaluationResult], folders: dict[str, str], function: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        run({"base": BASE}, scores={"rule": Score(function.format(rule=folders["rule.py"]))})


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"top_p.*confidence"):
        EvaluateConfig(top_p=0.0, confidence=1.0)


def test_the_settings_load_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, launcher.worker.evaluate.config; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
