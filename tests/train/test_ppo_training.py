"""PPO on a task with a known optimum: it learns, stops, goes on, and leaves a plain model."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen2ForCausalLM,
)

from launcher.worker.ppo.trainer import PPOTrainer
from tests.train import ppo_task

LEARNS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "num_ppo_epochs": 2,
    "learning_rate": 5e-3,
    "max_steps": 70,
}
SEVERAL: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
}
"""Micro-batches, mini-batches and epochs: 4 optimizer steps a rollout of 16 completions."""


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    """Copies of all trained weights, the value function's included."""
    return {
        name: parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }


def lora(rank: int = 8, **more: Any) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", **more)


def value_model() -> Any:
    torch.manual_seed(11)
    return AutoModelForSequenceClassification.from_pretrained(ppo_task.MODEL, num_labels=1)


def test_the_reward_of_the_task_is_what_it_says() -> None:
    ids = torch.tensor([[1, 2, *ppo_task.WANTED[:3]], [5, 6, 7, 8, ppo_task.WANTED[0]]])

    scores = ppo_task.share_of_wanted_tokens()(input_ids=ids).logits[:, 0]

    assert scores.tolist() == pytest.approx([0.6, 0.2], rel=0.01)


@pytest.mark.long
def test_the_reward_rises_to_near_its_optimum(tmp_path: Path) -> None:
    trainer = ppo_task.trainer(tmp_path, **LEARNS)

    trainer.train()

    reward = ppo_task.logged(trainer, "reward")
    assert reward[0] < 0.15
    assert max(reward[-5:]) > 0.5
    assert ppo_task.logged(trainer, "objective/kl")[0] == 0.0
    assert ppo_task.logged(trainer, "objective/kl")[-1] > 10
    assert ppo_task.logged(trainer, "policy/clipfrac_avg")[0] == 0.0
    assert ppo_task.logged(trainer, "val/explained_variance")[-1] > -0.5


@pytest.mark.long
@pytest.mark.parametrize("kind", ["head", "value_model", "lora"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reward_rises_with_every_seed(tmp_path: Path, seed: int, kind: str) -> None:
    options = {
        "head": {},
        "value_model": {"value_model": value_model()},
        # The head of random weights can hardly prefer a token to another, and adapters leave it so.
        "lora": {"peft_config": lora(16, modules_to_save=["lm_head"])},
    }
    settings = LEARNS | {"seed": seed, "max_steps": 100}
    trainer = ppo_task.trainer(tmp_path, options=options[kind], **settings)

    trainer.train()

    reward = ppo_task.logged(trainer, "reward")
    assert reward[0] < 0.15
    assert sum(reward[-5:]) / 5 > 3 * reward[0]


def test_a_strong_kl_penalty_keeps_the_policy_at_its_reference(tmp_path: Path) -> None:
    trainer = ppo_task.trainer(tmp_path, **LEARNS | {"kl_coef": 1.0, "max_steps": 50})

    trainer.train()

    assert max(ppo_task.logged(trainer, "objective/kl")) < 3


@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        (SEVERAL, 3),  # in the middle of a rollout
        (SEVERAL | {"max_steps": 20}, 14),  # the same in the second pass over the prompts
        ({}, 4),  # between two rollouts
    ],
)
def test_a_resumed_run_equals_one_without_a_stop(
    tmp_path: Path, settings: dict[str, Any], stop: int
) -> None:
    settings = settings | {"save_strategy": "steps", "save_steps": stop}
    whole = ppo_task.trainer(tmp_path, **settings)
    whole.train()

    resumed = ppo_task.trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))

    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    for key in ("loss", "reward", "kl"):
        assert ppo_task.logged(whole, key, stop) == ppo_task.logged(resumed, key, stop)


def test_a_run_goes_on_with_smaller_micro_batches(tmp_path: Path) -> None:
    settings = SEVERAL | {"save_strategy": "steps", "save_steps": 3}
    whole = ppo_task.trainer(tmp_path, **settings)
    whole.train()

    smaller = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    resumed = ppo_task.trainer(tmp_path, **(settings | smaller))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    # Step 4 is the last one on the rollout that was saved; later ones sample other completions.
    assert len(ppo_task.logged(resumed, "loss", 3)) == 5
    expected = ppo_task.logged(whole, "loss", 3)[0]
    assert ppo_task.logged(resumed, "loss", 3)[0] == pytest.approx(expected, abs=1e-5)


def test_the_saved_model_is_a_plain_causal_language_model(tmp_path: Path) -> None:
    trainer = ppo_task.trainer(tmp_path, max_steps=2)
    trainer.train()
    folder = tmp_path / "final"
    trainer.save_model(str(folder))

    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)

    assert type(model) is Qwen2ForCausalLM
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(ids).logits, trainer.model.eval()(ids).logits)
    saved = load_file(folder / "value_head.safetensors")
    assert torch.equal(saved["weight"], trainer.value_function.weight)
    assert saved["weight"].abs().sum() > 0


def test_a_separate_value_model_is_trained_saved_and_resumed(tmp_path: Path) -> None:
    settings = SEVERAL | {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    before = value_model().score.weight
    whole = ppo_task.trainer(tmp_path, options={"value_model": value_model()}, **settings)
    whole.train()
    resumed = ppo_task.trainer(tmp_path, options={"value_model": value_model()}, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert not torch.equal(whole.value_function.model.score.weight, before)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert (tmp_path / "checkpoint-3" / "value_model.safetensors").is_file()


def test_adapters_and_value_head_train_while_the_base_is_the_reference(tmp_path: Path) -> None:
    settings = SEVERAL | {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    whole = ppo_task.trainer(tmp_path, options={"peft_config": lora()}, **settings)
    start = weights(whole)
    whole.train()
    resumed = ppo_task.trainer(tmp_path, options={"peft_config": lora()}, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert whole.ref_model is None
    assert all("lora_" in name or "value_function" in name for name in start)
    assert any(not torch.equal(start[name], new) for name, new in weights(whole).items())
    assert ppo_task.logged(whole, "kl")[0] == 0.0
    assert ppo_task.logged(whole, "kl")[-1] != 0.0
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_an_adaptive_weight_moves_and_goes_on_where_it_was(tmp_path: Path) -> None:
    adaptive: dict[str, Any] = {
        "kl_controller": "adaptive",
        "kl_estimator": "k3",
        "kl_target": 50.0,  # far above what comes, so that the weight falls
        "kl_horizon": 100,
        "save_strategy": "steps",
        "save_steps": 6,
    }
    whole = ppo_task.trainer(tmp_path, **SEVERAL | adaptive)
    whole.train()
    resumed = ppo_task.trainer(tmp_path, **SEVERAL | adaptive)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

    # 16 completions a rollout, each time an error of −1 that counts as −0.2.
    coefs = ppo_task.logged(whole, "objective/kl_coef")
    assert coefs == pytest.approx([0.01, 0.01 * (1 - 0.2 * 16 / 100)])
    assert resumed.kl.coef == whole.kl.coef == pytest.approx(coefs[1] * (1 - 0.2 * 16 / 100))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_each_pass_over_a_rollout_makes_other_mini_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ppo_task.trainer(tmp_path, **SEVERAL | {"max_steps": 4, "max_completion_length": 4})
    seen: list[list[list[int]]] = []
    inherited = trainer._compute_loss

    def keep(model: Any, inputs: Any) -> Any:
        rows = zip(inputs["prompt_ids"].tolist(), inputs["completion_ids"].tolist(), strict=True)
        seen.append(sorted(prompt + completion for prompt, completion in rows))
        return inherited(model, inputs)

    monkeypatch.setattr(trainer, "_compute_loss", keep)
    trainer.train()

    # Micro-batches of 4, two of them a mini-batch, two mini-batches a pass, two passes.
    assert len(seen) == 8
    passes = seen[:4], seen[4:]
    first, second = (sorted(chain(*each[:2])) for each in passes)
    assert first != second
    first, second = (sorted(chain(*each)) for each in passes)
    assert first == second


def test_a_reference_may_be_given(tmp_path: Path) -> None:
    torch.manual_seed(3)
    other = AutoModelForCausalLM.from_pretrained(ppo_task.MODEL)
    with torch.no_grad():
        other.lm_head.weight.add_(torch.randn_like(other.lm_head.weight))
    trainer = ppo_task.trainer(tmp_path, options={"ref_model": other}, max_steps=1)

    trainer.train()

    assert ppo_task.logged(trainer, "kl")[0] > 0.1


def test_messages_are_scored_through_the_chat_template(tmp_path: Path) -> None:
    prompts = [[{"role": "user", "content": prompt}] for prompt in ppo_task.PROMPTS]
    dataset = Dataset.from_dict({"prompt": prompts})
    trainer = ppo_task.trainer(tmp_path, options={"train_dataset": dataset}, max_steps=1)
    seen: list[str] = []
    trainer.reward_funcs[0].register_forward_pre_hook(
        lambda model, args, kwargs: seen.extend(
            ppo_task.tokenizer().batch_decode(kwargs["input_ids"])
        ),
        with_kwargs=True,
    )

    trainer.train()

    assert len(seen) == 16
    for text in seen:
        assert text.startswith("<|im_start|>user\n")
        assert "<|im_end|>\n<|im_start|>assistant\n" in text
        assert text.replace("<|endoftext|>", "").endswith("<|im_end|>\n")


def test_evaluation_scores_held_out_prompts(tmp_path: Path) -> None:
    trainer = ppo_task.trainer(tmp_path, per_device_eval_batch_size=8, max_steps=1)

    report = trainer.evaluate(trainer.train_dataset.select(range(16)))

    assert 0.0 < report["eval_reward"] < 0.3
    assert report["eval_kl"] == 0.0


def test_a_completion_without_an_end_pays_the_penalty(tmp_path: Path) -> None:
    objective = {}
    for penalty in (None, 2.0):
        trainer = ppo_task.trainer(tmp_path, missing_eos_penalty=penalty, max_steps=1)
        trainer.train()
        objective[penalty] = ppo_task.logged(trainer, "objective/scores")[0]
        unfinished = 1 - ppo_task.logged(trainer, "eos_rate")[0]

    assert 0 < unfinished <= 1
    assert objective[None] - objective[2.0] == pytest.approx(2.0 * unfinished, abs=1e-5)


def test_scores_are_clipped_before_the_penalty_is_taken_off(tmp_path: Path) -> None:
    trainer = ppo_task.trainer(
        tmp_path, reward_clip_range=[0.5, 1.0], missing_eos_penalty=2.0, max_steps=1
    )

    trainer.train()

    unfinished = 1 - ppo_task.logged(trainer, "eos_rate")[0]
    assert ppo_task.logged(trainer, "reward")[0] < 0.5
    expected = pytest.approx(0.5 - 2.0 * unfinished, abs=1e-5)
    assert ppo_task.logged(trainer, "objective/scores")[0] == expected


def test_a_stop_token_ends_completions(tmp_path: Path) -> None:
    vocabulary = ppo_task.tokenizer()
    with pytest.raises(ValueError, match="`stop_token` 'zq%' is 3 tokens"):
        ppo_task.trainer(tmp_path, stop_token="zq%", max_steps=1)

    # All that is wanted is to write it, so that it comes.
    lengths = {}
    for stop in (None, "a"):
        trainer = ppo_task.trainer(tmp_path, stop_token=stop, max_steps=1)
        with torch.no_grad():
            trainer.model.lm_head.weight[vocabulary.convert_tokens_to_ids("a")] *= 50
        trainer.train()
        lengths[stop] = ppo_task.logged(trainer, "completions/mean_length")[0]
        ended = ppo_task.logged(trainer, "eos_rate")[0]

    assert lengths["a"] < lengths[None]
    assert ended > 0.2


def test_a_reward_model_reads_text_through_its_own_tokenizer(tmp_path: Path) -> None:
    other = ppo_task.tokenizer()
    other.add_tokens(["ab"])  # one token, where the policy writes two
    seen: list[list[int]] = []
    scorer = ppo_task.share_of_wanted_tokens()
    scorer.resize_token_embeddings(len(other))
    scorer.register_forward_pre_hook(
        lambda model, args, kwargs: seen.extend(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    prompts = Dataset.from_dict({"prompt": ["ab"] * 16})
    options = {"reward_model": scorer, "reward_processing_class": other, "train_dataset": prompts}
    trainer = ppo_task.trainer(tmp_path, options=options, max_steps=1)

    trainer.train()

    assert len(seen) == 16
    assert all(row[0] == other.convert_tokens_to_ids("ab") for row in seen)


def test_a_value_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    other = ppo_task.tokenizer()
    other.add_tokens(["<another>"])
    other.save_pretrained(tmp_path / "other")
    model = value_model()
    model.save_pretrained(tmp_path / "other")

    with pytest.raises(ValueError, match=r"tokenizers of policy .* and value model .* differ"):
        ppo_task.trainer(tmp_path, options={"value_model": str(tmp_path / "other")})


def test_a_language_model_is_refused_as_the_reward_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Qwen2ForCausalLM, not a sequence-classification model"):
        ppo_task.trainer(tmp_path, options={"reward_model": str(ppo_task.MODEL)})


def test_too_few_prompts_for_one_rollout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="48 prompts do not fill one rollout of 64"):
        ppo_task.trainer(tmp_path, per_device_train_batch_size=64)
