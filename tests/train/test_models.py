"""The precision that models are loaded in."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from launcher.cluster.profile import load_profile
from launcher.errors import UsageError
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.recipe.load import load_recipe
from launcher.recipe.types import Peft
from launcher.records.paths import RunPaths
from launcher.worker import models
from launcher.worker.context import Context
from tests.train.tiny_models import BASE


def context(root: Path, stage: str, *, zero: int = 0, **changed: Any) -> Context:
    """The first rank of a stage of the tiny chain in bfloat16."""
    divided = [f"resources.zero_stage={zero}", "resources.gpus=2"] if zero else []
    recipe = load_recipe("tiny/ppo", ["dtype=bfloat16", *divided])
    plan = make_plan(recipe, load_profile("dev"), shape_of, trl_version="1.16.0")
    planned = plan.stage(stage)
    planned = replace(planned, stage=replace(planned.stage, **changed))
    return Context(RunPaths(root), plan, planned, "token", "1", 0, 1, 0, 0.0)


@pytest.fixture
def reward_model(tmp_path: Path) -> str:
    from transformers import AutoModelForSequenceClassification

    folder = str(tmp_path / "reward")
    AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1).save_pretrained(folder)
    return folder


def test_weights_that_train_are_float32_alone_and_bfloat16_beside_deepspeeds_master(
    tmp_path: Path,
) -> None:
    assert models.causal(context(tmp_path, "ppo"), BASE).dtype == torch.float32
    assert models.causal(context(tmp_path, "ppo", zero=3), BASE).dtype == torch.bfloat16


def test_frozen_weights_are_bfloat16_with_and_without_deepspeed(
    tmp_path: Path, reward_model: str
) -> None:
    for zero in (0, 3):
        here = context(tmp_path, "ppo", zero=zero)
        assert models.frozen_causal(here, BASE).dtype == torch.bfloat16
        assert models.trained_reward_model(here, reward_model, 0).dtype == torch.bfloat16


def test_all_that_trains_beside_a_bfloat16_base_is_float32(tmp_path: Path) -> None:
    rewards = context(tmp_path, "rm", peft=Peft())
    adapter = models.lora(rewards, "SEQ_CLS")
    model = get_peft_model(models.new_reward_model(rewards, BASE, 0), adapter)
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for n, p in model.named_parameters() if "layers" in n and "base_layer" in n}
    assert trained == {torch.float32}
    assert frozen == {torch.bfloat16}
    values = models.value_model(context(tmp_path, "ppo", peft=Peft()), BASE, 0)
    assert values.dtype == torch.float32


def test_a_recipe_says_how_models_are_loaded(tmp_path: Path) -> None:
    for given in ({"attn_implementation": "eager"}, '{"attn_implementation": "eager"}'):
        here = context(tmp_path, "sft", train={"model_init_kwargs": given})
        assert models.causal(here, BASE).config._attn_implementation == "eager"


def test_every_model_of_a_stage_is_loaded_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from transformers import AutoModelForCausalLM

    repository = tmp_path / "hub" / "models--me--model"
    for revision, commit in (("main", "a" * 40), ("v1.0", "b" * 40)):
        folder = repository / "snapshots" / commit
        shutil.copytree(BASE, folder)
        model = AutoModelForCausalLM.from_pretrained(BASE)
        with torch.no_grad():
            model.lm_head.weight.fill_(0.0 if revision == "main" else 1.0)
        model.save_pretrained(folder)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    roles = {"policy": "me/model@v1.0", "reward_model": "stage:rm"}
    here = context(tmp_path, "ppo", models=roles)
    place = str(repository / "snapshots" / ("b" * 40))
    assert here.model("policy") == models.reference_of(here) == here.tokenizer == place
    assert (models.causal(here, place).lm_head.weight == 1).all()
    own = context(tmp_path, "ppo", models=roles, tokenizer="me/model@" + "a" * 40)
    assert own.tokenizer == str(repository / "snapshots" / ("a" * 40))

    rewards = here.plan.stage("rm")
    rewards = replace(rewards, stage=replace(rewards.stage, use="me/model@v1.0"))
    stages = tuple(rewards if each.name == "rm" else each for each in here.plan.stages)
    assert replace(here, plan=replace(here.plan, stages=stages)).model("reward_model") == place

    with pytest.raises(UsageError, match="does not have me/model@v2"):
        here.folder_of("me/model@v2")


def test_a_mixture_of_experts_that_sft_left_its_balance_on_can_generate(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3_moe",
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
        vocab_size=64,
        output_router_logits=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    loaded = models.load_causal(str(tmp_path), torch.float32)
    prompt = torch.arange(20).reshape(2, 10)
    padded = torch.tensor([[0] * 3 + [1] * 7, [1] * 10])
    written = loaded.generate(prompt, attention_mask=padded, max_new_tokens=3)
    assert written.shape[1] > 10
