"""A task for PPO whose optimum is known: write nothing but tokens of a wanted set.

The policy is a tiny random model with the tokenizer of the recipes' own; the reward is the share of
wanted tokens in prompt and completion, by a sequence classifier whose weights are set by hand.
The policy cannot write the padding token: TRL's trainer scores a completion up to the first one but
lets it go on, so a policy that can learns to end there, which no trained language model does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PhiConfig,
    PhiForCausalLM,
    PhiForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from launcher.shipped import shipped

MODEL = shipped("recipes") / "tiny" / "model"
WANTED = list(range(20, 36))
"""The wanted tokens, 16 of the 512: chance gives a reward of about 0.03."""
PROMPTS = [f"{first}{second}" for first in "abcdefgh" for second in "123456"]


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL, padding_side="left")


def share_of_wanted_tokens() -> Qwen2ForSequenceClassification:
    """A reward model whose score is, within 1 %, the share of tokens among `WANTED`.

    One layer of attention with equal weights averages an indicator that the embedding holds in its
    first coordinate into the second; a large third coordinate keeps the norms from mattering.
    """
    config = Qwen2Config(
        vocab_size=AutoConfig.from_pretrained(MODEL).vocab_size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        num_labels=1,
        pad_token_id=tokenizer().pad_token_id,
    )
    model = Qwen2ForSequenceClassification(config).eval()
    anchor = 30.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        embedding = model.model.embed_tokens.weight
        embedding[WANTED, 0] = 1.0
        embedding[:, 2] = anchor
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, 0] = 1.0
        attention.o_proj.weight[1, 0] = 1.0
        rms = anchor / 8**0.5
        model.score.weight[0, 1] = rms * rms
    return model


def small(kind: type[Any]) -> Any:
    """A random model of the Phi family, `PhiForCausalLM` or `PhiForSequenceClassification`.

    Its LM head has a bias, which keeps it from ever writing the padding token; the gradient of a
    probability of 0 is 0, so training leaves it so.
    """
    ours = tokenizer()
    config = PhiConfig(
        vocab_size=AutoConfig.from_pretrained(MODEL).vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_act="silu",
        max_position_embeddings=256,
        num_labels=1,
        bos_token_id=None,
        eos_token_id=ours.eos_token_id,
        pad_token_id=ours.pad_token_id,
    )
    torch.manual_seed(0)
    model = kind(config)
    if kind is PhiForCausalLM:
        with torch.no_grad():
            model.lm_head.bias[ours.pad_token_id] = -1e4
    return model


@torch.no_grad()
def mean_score(policy: Path, reward: Path, samples: int, length: int, seed: int) -> float:
    """The mean score that a reward model gives to what a policy writes, `samples` times for each
    prompt: what the training raised, 0 to 1."""
    ours = tokenizer()
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    judge = AutoModelForSequenceClassification.from_pretrained(reward, dtype=torch.float32).eval()
    ids = ours(PROMPTS * samples, padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    written = model.generate(
        **ids,
        do_sample=True,
        top_k=0,
        max_new_tokens=length,
        eos_token_id=ours.eos_token_id,
        pad_token_id=ours.pad_token_id,
    )
    scores: torch.Tensor = judge(input_ids=written, attention_mask=written != ours.pad_token_id)
    return float(scores.logits.mean())


def write(folder: Path, settings: dict[str, Any]) -> None:
    """What both sides read: `settings.json`, `prompts.json`, `policy/`, `reward/`, `value/`."""
    ours = tokenizer()
    models = {
        "policy": small(PhiForCausalLM),
        "reward": share_of_wanted_tokens(),
        "value": small(PhiForSequenceClassification),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        ours.save_pretrained(folder / name)
    (folder / "prompts.json").write_text(json.dumps({"prompt": PROMPTS * 8}))
    (folder / "settings.json").write_text(json.dumps(settings))
