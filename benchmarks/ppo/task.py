"""A task for PPO whose optimum is known: write nothing but tokens of a wanted set.

The policy is the tiny random model of the recipes; the reward is the share of wanted tokens in
prompt and completion, computed by a sequence classifier whose weights are set by hand.
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


def share_in_completions(policy: Path, samples: int, length: int, seed: int) -> float:
    """The mean share of wanted tokens in what a policy writes, `samples` times for each prompt.

    Counted, not scored by the reward model, and over the completion alone. 0 to 1.
    """
    ours = tokenizer()
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    ids = ours(PROMPTS * samples, padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    written = model.generate(
        **ids,
        do_sample=True,
        top_k=0,
        max_new_tokens=length,
        eos_token_id=ours.eos_token_id,
        pad_token_id=ours.pad_token_id,
    )[:, ids["input_ids"].size(1) :]
    kept = written != ours.pad_token_id
    wanted = torch.isin(written, torch.tensor(WANTED)) & kept
    return (wanted.sum(1) / kept.sum(1).clamp(min=1)).mean().item()


def write(folder: Path, settings: dict[str, Any]) -> None:
    """What both sides read: `settings.json`, `prompts.json`, `policy/`, `reward/`, `value/`."""
    ours = tokenizer()
    torch.manual_seed(0)
    value = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=1)
    value.config.pad_token_id = ours.pad_token_id
    models = {
        "policy": AutoModelForCausalLM.from_pretrained(MODEL),
        "reward": share_of_wanted_tokens(),
        "value": value,
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        ours.save_pretrained(folder / name)
    (folder / "prompts.json").write_text(json.dumps({"prompt": PROMPTS * 8}))
    (folder / "settings.json").write_text(json.dumps(settings))
