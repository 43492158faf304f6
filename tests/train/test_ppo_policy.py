"""The two short ways of PPO's policy, held against the long ones that they stand in for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from launcher.worker.ppo import policy, sampling
from launcher.worker.ppo.value import ATTRIBUTE, ValueHead
from tests.train import ppo_task

PROMPTS = ["abc", "abcabcabcabc", "abcabc", "a", "b", "cc"]


def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(ppo_task.MODEL)


def left_padded() -> Any:
    return ppo_task.tokenizer()(PROMPTS, padding=True, return_tensors="pt")


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_whole_logits_score_as_the_fused_head_does(
    monkeypatch: pytest.MonkeyPatch, entropy_gradient: bool
) -> None:
    given = left_padded()
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    labels[0, -2:] = -100  # padding of a completion that is shorter
    found = []
    for whole in (2**24, 0):
        monkeypatch.setattr(policy, "WHOLE_LOGITS", whole)
        one = model()
        add_fused_lm_head(one, temperature=0.7, outputs=("log_probs", "entropy"))
        setattr(one, ATTRIBUTE, ValueHead(one.config.hidden_size))
        policy.score_completions_only(one, 0.7, entropy_gradient=entropy_gradient)
        output = one(
            **given,
            labels=labels,
            fused_lm_head=True,
            completion_length=3,
            with_values=True,
            with_entropy=True,
        )
        loss = output.log_probs.sum()
        if entropy_gradient:
            loss = loss + output.entropy.sum()
        else:
            assert whole == 0 or not output.entropy.requires_grad
        loss.backward()
        gradients = [p.grad for p in one.parameters() if p.grad is not None]
        found.append([output.log_probs, output.entropy, output.token_values, *gradients])

    for short, long in zip(*found, strict=True):
        assert torch.allclose(short, long, atol=1e-4)
    assert found[0][0].shape == (len(PROMPTS), 3)
    assert found[0][0][0, -1] == 0


def test_sampling_continues_prompts_of_any_length_as_generate_does() -> None:
    one, tokenizer, given = model(), ppo_task.tokenizer(), left_padded()
    with torch.no_grad():
        # Apart from chance: the likeliest token is so by far.
        one.lm_head.weight.mul_(1000)
    # Of the tokens that come, one that ends some rows before the others, so that they leave.
    settings = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": tokenizer.pad_token_id}
    free = one.generate(**given, **settings, eos_token_id=None)[:, given["input_ids"].size(1) :]
    end = int(free[0, 3])
    expected = []
    for row in free.tolist():
        expected.append(row[: row.index(end) + 1] if end in row else row)

    got = sampling.sample(
        one,
        [tokenizer(prompt)["input_ids"] for prompt in PROMPTS],
        length=12,
        temperature=1.0,
        end_ids=[end],
        pad_id=tokenizer.pad_token_id,
        device=torch.device("cpu"),
    )

    assert len({len(row) for row in expected}) > 1
    assert got == expected


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])

    drawn = sampling._draw(probabilities.log().expand(20_000, 4))

    frequencies = drawn.bincount(minlength=4) / len(drawn)
    assert torch.allclose(frequencies, probabilities, atol=0.02)
    assert frequencies[3] == 0


@pytest.mark.parametrize(
    "setting", [{"top_k": 5}, {"top_p": 0.9}, {"repetition_penalty": 1.1}, {"min_p": 0.1}]
)
def test_settings_that_cut_the_distribution_are_left_to_generate(
    tmp_path: Any, setting: dict[str, Any]
) -> None:
    one = model()

    assert sampling.serves(one, ppo_task.config(tmp_path))
    assert not sampling.serves(one, ppo_task.config(tmp_path, **setting))
