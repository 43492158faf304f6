"""Parameters of a shape against the model that transformers builds from the same config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from launcher.memory import modules
from launcher.memory.lora import targets
from launcher.models.config import config_of
from launcher.models.families import FAMILIES
from launcher.models.read import read_shape
from launcher.models.table import rows, table
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {
    "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 48, "vocab_size": 128,
    "pad_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 56,
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "llama": [{"head_dim": 32}, {"attention_bias": True, "mlp_bias": True}],
    "mistral": [{"head_dim": 32}, {"sliding_window": None}, {"sliding_window": 24}],
    "mixtral": [EXPERTS, EXPERTS | {"head_dim": 32}],
    "qwen2": [{"num_key_value_heads": None}, {"use_sliding_window": True, "sliding_window": 24}],
    "qwen2_moe": [EXPERTS, EXPERTS | {"qkv_bias": False}, EXPERTS | {"mlp_only_layers": [0]}],
    "qwen3": [{"attention_bias": True}, {"head_dim": 24}],
    "qwen3_moe": [
        EXPERTS,
        EXPERTS | {"use_sliding_window": True, "sliding_window": 24},
        EXPERTS | {"mlp_only_layers": [0]},
    ],
    "gemma": [{"attention_bias": True}],
    "gemma2": [{"head_dim": 32}],
    "gemma3_text": [{"head_dim": 32}],
    "smollm3": [{"mlp_bias": True, "attention_bias": True}],
    "gpt_neox": [{"attention_bias": False}, {"use_parallel_residual": False}],
    "gpt2": [{"n_inner": 96}],
    "gpt_bigcode": [{"n_inner": 96}, {"multi_query": False}],
    "starcoder2": [{"use_bias": False}, {"sliding_window": 24}],
    "olmo2": [{"attention_bias": True}],
    "granite": [{"attention_bias": True, "mlp_bias": True}],
    "cohere": [{"use_qk_norm": True}, {"attention_bias": True}],
    "stablelm": [{"use_qkv_bias": True}, {"use_parallel_residual": True}, {"qk_layernorm": True}],
}
CONFIGS = [
    pytest.param({"model_type": family, **base} | variant | tied, id=f"{family}-{number}{tied}")
    for family, described in FAMILIES.items()
    for base in [GPT2 if described.learned_positions else SMALL]
    for number, variant in enumerate(
        [EXPERTS if described.expert_width else {}, *VARIANTS.get(family, [])]
    )
    for tied in ({}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False})
]


def built(config: dict[str, Any], kind: Any = AutoModelForCausalLM) -> Any:
    """The model on torch's meta device: shapes without memory."""
    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return kind.from_config(AutoConfig.for_model(config["model_type"], **keys))


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def agrees(shape: ModelShape, config: dict[str, Any]) -> None:
    whole, trunk = built(config), built(config, AutoModel)
    assert shape.parameters == count(whole)
    assert shape.trunk_parameters == count(trunk)
    blocks = trunk.h if hasattr(trunk, "h") else trunk.layers
    assert shape.layer_parameters == count(blocks[-1])
    if shape.dense_layers:
        assert shape.dense_layer_parameters == count(blocks[0])


@pytest.mark.parametrize("config", CONFIGS)
def test_a_shape_counts_what_transformers_builds(config: dict[str, Any]) -> None:
    agrees(read_shape(config), config)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_config_of_a_shape_builds_the_same_model(config: dict[str, Any]) -> None:
    shape = read_shape(config, name="mine", source="recipe")
    again = config_of(shape)
    assert read_shape(again, name="mine", source="recipe") == shape
    agrees(shape, again)
    assert count(built(again)) == count(built(config))


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(next(iter(row["names"]))))
def test_a_model_of_the_table_has_the_parameters_that_transformers_builds(
    row: dict[str, Any],
) -> None:
    shape = table()[next(iter(row["names"]))]
    agrees(shape, config_of(shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_transformers_saved_is_read_as_the_model_that_it_makes(family: str) -> None:
    described = FAMILIES[family]
    given = GPT2 if described.learned_positions else SMALL
    experts = EXPERTS if described.expert_width else {}
    saved = AutoConfig.for_model(family, **given, **experts).to_diff_dict()
    agrees(read_shape(saved), saved)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modules_that_adapters_name_are_those_that_transformers_builds(family: str) -> None:
    described = FAMILIES[family]
    experts = EXPERTS if described.expert_width else {}
    flag = {described.qk_norm: True} if isinstance(described.qk_norm, str) else {}
    config = {"model_type": family, **(GPT2 if described.learned_positions else SMALL)}
    shape, model = read_shape(config | experts | flag), built(config | experts | flag)
    assert modules.known(shape)
    adaptable = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D)
    }
    stated, others = set(modules.layers(shape)) - {modules.SCORE}, set(modules.others(shape))
    # A mixture's experts and router are parameters, which PEFT knows by the names that they had.
    routed = {path for path in stated if path.endswith("mlp.gate") or ".experts." in path}
    assert stated - routed == adaptable
    assert others <= {name for name, _ in model.named_modules()}
    parents = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    heads = {parent for parent in parents if "_layernorm.norms." in parent}
    assert parents - heads <= stated | others


@pytest.mark.parametrize(
    ("family", "names", "known"),
    [
        ("phi", ("dense", "fc1"), {"o_proj", "up_proj"}),
        ("gpt2", ("c_proj",), {"o_proj", "down_proj"}),
        ("gpt2", ("mlp.c_proj",), {"down_proj"}),
        ("gpt_neox", ("query_key_value", "layers.1.attention.dense"), {"qkv_proj", "o_proj"}),
        ("mixtral", ("q_proj", "w1", "gate"), {"q_proj", "experts.gate_up_proj", "router"}),
        ("llama", ("self_attn.q_proj", "k_prj"), {"q_proj"}),
    ],
)
def test_layers_that_a_family_calls_by_another_name_are_counted(
    family: str, names: tuple[str, ...], known: set[str]
) -> None:
    described = FAMILIES[family]
    experts = EXPERTS if described.expert_width else {}
    sizes = GPT2 if described.learned_positions else SMALL
    shape = read_shape({"model_type": family, **sizes, **experts})
    assert targets(Peft(targets=names), shape) == known
