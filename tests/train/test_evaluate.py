"""Evaluation of real, tiny models."""

from __future__ import annotations

import json
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

GREEDY = EvaluateConfig(max_completion_length=12, temperature=0.0, bootstrap_samples=50)

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
        ("/nowhere/rule.py:score", "no copy of /nowhere/rule.py"),
        ("{rule}:scor", "has no function scor"),
        ("{rule}:short", "gave 1 values for 8 completions"),
    ],
)
def test_a_score_that_cannot_be_used_is_named(
    run: Callable[..., EvaluationResult], folders: dict[str, str], function: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        run({"base": BASE}, scores={"rule": Score(function.format(rule=folders["rule.py"]))})


def test_without_reward_model_and_baseline_scores_are_compared_with_the_first_candidate(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    result = run(
        {"policy": folders["policy"], "base": BASE},
        baseline=None,
        reward_model=None,
        reference=None,
        scores={"brief": Score("length", {"max": 6})},
    )
    policy, base = result.candidates
    assert (result.baseline, result.reward_model) == ("policy", None)
    assert policy.against_baseline == {} and list(base.against_baseline) == ["brief"]
    assert list(base.measures) == ["brief"] and base.perplexity is None


def test_accuracy_is_of_the_rows_that_have_an_answer(
    run: Callable[..., EvaluationResult], folders: dict[str, str]
) -> None:
    first = run({"base": BASE}, reward_model=None, config=GREEDY).samples
    said = [sample.answers["base"].text for sample in first]
    answers = [said[0], "something else", None, said[3]]
    rows = [row | {"told": answer} for row, answer in zip(ROWS, answers, strict=False)]
    result = run(
        {"base": BASE, "policy": folders["policy"]},
        rows=rows,
        reward_model=None,
        config=GREEDY,
        scores={"accuracy": Score("exact_match", {"column": "told"})},
    )
    assert only(result, "base").measures["accuracy"].mean == pytest.approx(2 / 3)
    assert "accuracy" in result.samples[0].answers["base"].measures
    assert result.samples[2].answers["base"].measures == {}


@pytest.mark.parametrize(
    ("column", "complaint"),
    [("wnated", "compares with the column wnated, and the data has"), ("none", "no answer in any")],
)
def test_answers_that_are_not_there_are_missed_before_a_model_is_read(
    run: Callable[..., EvaluationResult], column: str, complaint: str
) -> None:
    score = Score("numeric_answer", {"column": column})
    with pytest.raises(UsageError, match=complaint):
        run(
            {"base": "/nowhere"},
            reward_model=None,
            rows=[row | {"none": None} for row in ROWS],
            scores={"accuracy": score},
        )


@pytest.mark.parametrize("talks", [True, False], ids=["messages", "text"])
def test_perplexity_is_of_all_tokens_of_the_datas_completions(
    run: Callable[..., EvaluationResult], tokenizer: Any, talks: bool
) -> None:
    told = ["one", None, "three four five six seven", "eight"]
    rows: list[dict[str, Any]] = [
        {
            "prompt": row["prompt"] if talks else "Say:\n",
            "completion": [{"role": "assistant", "content": text}] if talks and text else text,
        }
        for row, text in zip(ROWS, told, strict=False)
    ]
    found = run({"base": BASE}, rows=rows, reward_model=None).candidates[0].perplexity
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    total, tokens = 0.0, 0
    for row in (row for row in rows if row["completion"]):
        if talks:
            asked = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=False
            )
            whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        else:
            asked, whole = row["prompt"], row["prompt"] + row["completion"] + tokenizer.eos_token
        before, ids = (tokenizer(text)["input_ids"] for text in (asked, whole))
        assert ids[: len(before)] == before
        ids = ids[: len(before) + CONFIG.max_completion_length]
        labels = torch.tensor([[-100] * len(before) + ids[len(before) :]])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=labels).loss
        total, tokens = total + float(loss) * (len(ids) - len(before)), tokens + len(ids)
        tokens -= len(before)
    assert found is not None
    assert found.mean == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert found.low <= found.mean <= found.high


def turn(folder: Path, tokenizer: Any) -> dict[str, tuple[int, int]]:
    """Write a tokenizer with the same tokens, numbered the other way round but for the special
    ones. Token → its number and the new one."""
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    ordinary = {token: i for token, i in saved["model"]["vocab"].items() if i > 2}
    turned = dict(zip(ordinary, reversed(ordinary.values()), strict=True))
    saved["model"]["vocab"] |= turned
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    return {token: (number, turned[token]) for token, number in ordinary.items()}


def test_a_model_that_numbers_its_tokens_otherwise_is_refused_before_any_works(
    run: Callable[..., EvaluationResult], tmp_path: Path, tokenizer: Any
) -> None:
    AutoModelForCausalLM.from_pretrained(BASE).save_pretrained(tmp_path)
    turn(tmp_path, tokenizer)
    phases: list[str] = []
    for models in ({"base": BASE, "other": str(tmp_path)}, {"base": BASE}):
        with pytest.raises(UsageError, match=f"{tmp_path} numbers its tokens otherwise than"):
            run(models, reference=str(tmp_path), on_phase=phases.append)
    assert phases == []


def test_a_reward_model_of_another_vocabulary_reads_the_words(
    run: Callable[..., EvaluationResult], folders: dict[str, str], tmp_path: Path, tokenizer: Any
) -> None:
    # Its tokens are the base's, numbered the other way round, and so are its embeddings.
    before, after = map(list, zip(*turn(tmp_path, tokenizer).values(), strict=True))
    model = AutoModelForSequenceClassification.from_pretrained(folders["reward"], num_labels=1)
    weights = model.get_input_embeddings().weight.data
    weights[after] = weights[before].clone()
    model.save_pretrained(tmp_path)

    own = run({"base": BASE}, reference=None)
    theirs = run({"base": BASE}, reference=None, reward_model=str(tmp_path))
    one, same = (found.candidates[0].measures["reward"] for found in (own, theirs))
    assert same.mean == pytest.approx(one.mean, abs=1e-5)


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"top_p.*confidence"):
        EvaluateConfig(top_p=0.0, confidence=1.0)


def test_the_settings_load_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, launcher.worker.evaluate.config; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
