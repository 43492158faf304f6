"""GRPO, RLOO and online DPO on the tiny model: judged, resumed, divided, and better for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from launcher.errors import LauncherError
from tests.train import online
from tests.train.tiny_models import BASE

# Two optimizer steps on each rollout of 16 completions, twice over: stops fall within rollouts.
GROUPED: dict[str, Any] = {
    "learning_rate": 1e-2,
    "num_generations": 4,
    "max_completion_length": 6,
    "generation_batch_size": 16,
    "num_iterations": 2,
    "max_steps": 6,
}
PAIRS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "max_new_tokens": 6,
    "max_length": 64,
    "max_steps": 6,
}
SETTINGS = {"grpo": GROUPED, "rloo": GROUPED, "online_dpo": PAIRS}
ADAPTER = {"r": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("method", "stop", "stage"),
    [
        ("grpo", 3, {}),  # amid the second pass over the rollout's first half
        ("rloo", 5, {}),
        ("online_dpo", 3, {}),
        pytest.param("grpo", 4, {}, marks=pytest.mark.long),  # between two rollouts
        pytest.param("grpo", 1, {"peft": ADAPTER}, marks=pytest.mark.long),
        pytest.param("rloo", 3, {"peft": ADAPTER}, marks=pytest.mark.long),
        pytest.param("online_dpo", 5, {"peft": ADAPTER}, marks=pytest.mark.long),
    ],
)
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, method: str, stop: int, stage: dict[str, Any]
) -> None:
    settings = SETTINGS[method]
    # Few prompts, so that the stop and what follows lie in different epochs.
    rows = [{"prompt": f"{n}"} for n in range(12 if method == "online_dpo" else 4)]
    stage = {"global_batch": 8, "rows": rows, "resources": {"micro_batch": 4}, **stage}
    whole = online.trained(tmp_path / "whole", method, settings, **stage)
    parts = online.resumed(tmp_path / "parts", method, settings, stop, **stage)

    assert len(whole.metrics) == 6
    assert whole.logged("grad_norm")[-1] > 0
    assert parts.weights == whole.weights
    assert parts.logged("loss") == whole.logged("loss")


@pytest.mark.long
def test_a_reference_that_follows_the_policy_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    follows = {"beta": 0.5, "sync_ref_model": True, "ref_model_sync_steps": 2}
    stage = {"global_batch": 8, "resources": {"micro_batch": 4}}
    settings = {**GROUPED, **follows}
    whole = online.trained(tmp_path / "whole", "grpo", settings, **stage)
    parts = online.resumed(tmp_path / "parts", "grpo", settings, 3, **stage)
    assert parts.weights == whole.weights
    assert parts.logged("kl") == whole.logged("kl")


@pytest.fixture
def reward_model(tmp_path: Path) -> str:
    """A reward model whose scores are further apart than any sigmoids."""
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
    with torch.no_grad():
        model.score.weight.mul_(100)
    model.save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "judge")
    return str(tmp_path / "judge")


WRITES_DOWN = """
import json
from pathlib import Path

def seen(prompts, completions, completion_ids, level, **others):
    with Path(__file__).with_name("seen.jsonl").open("a") as file:
        for row in zip(prompts, completions, completion_ids, level):
            file.write(json.dumps(row) + "\\n")
    return [0.0 if n else None for n in level]
"""


@pytest.mark.parametrize("talks", [False, True])
@pytest.mark.parametrize("method", ["grpo", "online_dpo"])
def test_several_judges_are_weighted_and_a_model_gives_its_own_score(
    tmp_path: Path, reward_model: str, method: str, talks: bool
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.py").write_text(WRITES_DOWN)
    prompts = [[{"role": "user", "content": n}] if talks else n for n in "abcdefgh"]
    made = online.trained(
        folder,
        method,
        {**SETTINGS[method], "generation_batch_size": 8, "max_steps": 1}
        if method == "grpo"
        else {**PAIRS, "max_steps": 1},
        rows=[{"prompt": prompt, "level": n % 2} for n, prompt in enumerate(prompts)],
        rewards={
            "short": {**online.SHORT, "weight": 2.0},
            "judge": {"model": reward_model, "weight": -0.5},
            "mine": "./mine.py:seen",
        },
        global_batch=8,
        resources={"micro_batch": 4},
    )
    copied = made.run.user_file(str(folder / "mine.py")).with_name("seen.jsonl")
    seen = [json.loads(line) for line in copied.read_text().splitlines()]
    assert len(seen) == (8 if method == "grpo" else 16)
    assert not (folder / "seen.jsonl").exists()

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    scores, lengths = [], []
    for prompt, completion, ids, _level in seen:
        ended = tokenizer.eos_token_id in ids
        text = (
            tokenizer.apply_chat_template(prompt + completion, tokenize=False)
            if talks
            else prompt + completion + tokenizer.eos_token * ended
        )
        with torch.no_grad():
            read = model(torch.tensor([tokenizer(text)["input_ids"]]))
        scores.append(read.logits.item())
        lengths.append(len(completion[0]["content"] if talks else completion))
    assert max(scores) - min(scores) > 1.5  # which no sigmoids are apart
    short = [1.0 if n <= 8 else max(0.0, 2 - n / 8) for n in lengths]
    expected = sum(2 * s - 0.5 * m for s, m in zip(short, scores, strict=True)) / len(seen)
    assert made.logged("reward") == [pytest.approx(expected, abs=1e-3)]


TEXTS = """
import json
from pathlib import Path

def seen(completions, solution, **others):
    with Path(__file__).with_name("seen.jsonl").open("a") as file:
        for row in zip(completions, solution):
            file.write(json.dumps(row) + "\\n")
    return [0.0] * len(completions)
"""


def test_answers_in_latex_are_judged_while_a_policy_trains(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TEXTS)
    settings = {"max_completion_length": 9, "generation_kwargs": {"sequence_bias": boxes()}}
    made = online.trained(
        tmp_path,
        "grpo",
        {**GROUPED, **settings, "max_steps": 2},
        rows=[
            {"prompt": "p", "solution": 7},
            {"prompt": "q", "solution": "14/2"},
            {"prompt": "r", "solution": "$8$"},
            {"prompt": "s", "solution": None},
        ],
        rewards={"right": "accuracy_reward", "mine": "./mine.py:seen"},
        global_batch=8,
    )
    copied = made.run.user_file(str(tmp_path / "mine.py")).with_name("seen.jsonl")
    seen = [json.loads(line) for line in copied.read_text().splitlines()]
    assert {text for text, _ in seen} == {r"\boxed{7}", r"\boxed{8}"}
    right = [("8" if answer == "$8$" else "7") in text for text, answer in seen if answer]
    (mean,) = [row["rewards/right/mean"] for row in made.metrics if "rewards/right/mean" in row]
    assert 0 < mean < 1
    assert mean == pytest.approx(sum(right) / len(right))


def boxes() -> list[Any]:
    """What has a policy write 7 or 8 in a box: for each letter, the one that comes next."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)

    def token(letter: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(letter))

    follow = ["\\b", "bo", "ox", "xe", "ed", "d{", "{7", "{8", "7}", "8}"]
    pairs = [[[token(pair[0]), token(pair[1])], 100.0] for pair in follow]
    return [[[token("\\")], 50.0], *pairs, [[token("}"), tokenizer.eos_token_id], 100.0]]


def test_a_mistake_in_a_users_reward_ends_the_training_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def mine(answer, **_):\n    return [answer[99]]\n")
    made = online.prepare(
        tmp_path,
        "grpo",
        GROUPED,
        rewards={"mine": "./rewards.py:mine"},
        rows=[{"prompt": n, "answer": n} for n in "abcdefgh"],
        global_batch=8,
    )
    # What is submitted is what runs: the file as it was then.
    (tmp_path / "rewards.py").unlink()
    with pytest.raises(LauncherError, match=r"rewards.py:2 mine: IndexError") as blamed:
        online.train(made)
    assert "answer" in str(blamed.value.hint)


def test_a_policy_and_a_classifier_of_many_labels_are_no_judges(tmp_path: Path) -> None:
    many = tmp_path / "many"
    AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=3).save_pretrained(many)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(many)
    with pytest.raises(LauncherError, match="of 3 labels"):
        judged(tmp_path / "many labels", str(many))
    with pytest.raises(LauncherError, match="is not a reward model"):
        online.train(judged(tmp_path / "policy", BASE))


def judged(root: Path, model: str) -> online.Trained:
    """A GRPO stage that `model` judges."""
    rewards = {"judge": {"model": model}}
    return online.prepare(root, "grpo", GROUPED, rewards=rewards, global_batch=8)


def test_groups_are_evaluated_whole_whatever_the_micro_batch(tmp_path: Path) -> None:
    rows = [{"prompt": n} for n in "abcdefgh"]
    made = online.trained(
        tmp_path,
        "grpo",
        {**GROUPED, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "beta": 0.1},
        rows=rows,
        data={"eval_path": "./rows.jsonl"},
        global_batch=8,
        resources={"micro_batch": 1},
    )
    lines = made.paths.metrics.read_text().splitlines()
    found = [row for row in map(json.loads, lines) if "eval_reward" in row]
    assert [row["step"] for row in found] == [1, 2, 2]
    assert all(0 <= row["eval_reward"] <= 1 for row in found)


def test_a_step_of_online_dpo_is_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    settings = {**PAIRS, "learning_rate": 1e-9, "max_steps": 8}
    norms = []
    for size in (2, 8):
        stage = {"global_batch": 8, "resources": {"micro_batch": size}}
        made = online.trained(tmp_path / str(size), "online_dpo", settings, **stage)
        norms.append(sum(made.logged("grad_norm")) / 8)
    # Other completions are sampled, but a sum would be four times the mean.
    assert 0.5 < norms[0] / norms[1] < 2


@pytest.mark.long
@pytest.mark.timeout(1200)  # four starts of a trainer, of which the first may compile DeepSpeed's
@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("grpo", {}),
        ("grpo", {"peft": ADAPTER}),
        ("rloo", {}),
        ("online_dpo", {}),
    ],
)
def test_two_processes_stop_and_go_on_to_the_same_weights(
    tmp_path: Path, reward_model: str, method: str, zero: int, stage: dict[str, Any]
) -> None:
    settings = {**SETTINGS[method], "save_strategy": "steps", "save_steps": 3}
    if method == "grpo" and not stage:
        settings["beta"] = 0.1
    stage = {
        "rewards": {"short": online.SHORT, "judge": {"model": reward_model}},
        "global_batch": 8,
        "processes": 2,
        "resources": {"micro_batch": 2, "zero_stage": zero},
        **stage,
    }
    whole = online.prepare(tmp_path / "whole", method, settings, **stage)
    assert online.train_processes(whole, 2) == [0, 0], whole.log
    parts = online.prepare(tmp_path / "parts", method, settings, **stage)
    # As if what ran there had ended at its third step.
    shutil.copytree(
        whole.paths.checkpoints / "checkpoint-3", parts.paths.checkpoints / "checkpoint-3"
    )
    assert online.train_processes(parts, 2) == [0, 0], parts.log
    assert [row["step"] for row in parts.metrics] == [4, 5, 6]
    assert parts.logged("loss") == pytest.approx(whole.logged("loss")[3:], abs=1e-6)
    assert whole.logged("grad_norm")[-1] > 0


@pytest.fixture
def sharper(tmp_path: Path) -> str:
    """The tiny model with larger embeddings: an adapter leaves the head as it is, and that of the
    tiny model can hardly prefer one token to another."""
    model = AutoModelForCausalLM.from_pretrained(BASE)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)
    model.save_pretrained(tmp_path / "sharper")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "sharper")
    return str(tmp_path / "sharper")


SHARE = """
def share(completions, **_):
    return [sum("a" <= c <= "m" for c in text) / max(1, len(text)) for text in completions]
"""


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("method", SETTINGS)
def test_the_policy_earns_more(
    tmp_path: Path, sharper: str, method: str, lora: bool, seed: int
) -> None:
    """The reward is the share of letters up to m, of which random answers have a third."""
    settings = {"max_steps": 40, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    if method != "online_dpo":
        settings |= {"generation_batch_size": 32, "num_iterations": 1}
    (tmp_path / "rewards.py").write_text(SHARE)
    made = online.trained(
        tmp_path,
        method,
        {**SETTINGS[method], **settings},
        rewards={"share": "./rewards.py:share"},
        global_batch=32,
        seed=seed,
        policy=sharper,
        **({"peft": {"r": 16, "alpha": 64}} if lora else {}),
    )
    rewards = made.logged("reward")
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert last > first + (0.08 if lora else 0.25), rewards
