"""Parameters of a shape against the model that transformers builds from the same config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from launcher.errors import UsageError
from launcher.memory import modules
from launcher.memory.lora import targets
from launcher.memory.models import residents
from launcher.memory.stack import stack_of
from launcher.memory.states import states
from launcher.memory.types import Settings
from launcher.memory.whole import parameters
from launcher.models.config import config_of
from launcher.models.families import FAMILIES
from launcher.models.read import read_shape
from launcher.models.table import rows, table
from launcher.models.types import ModelShape
from launcher.plan.adapters import check_adapter
from launcher.recipe.types import Peft
from launcher.worker.models import lora_config
from tests.unit.planning import stage

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


COPIED = [
    ("llama", ("embed_tokens",), "all-linear"),
    ("llama", ("embed_tokens", "lm_head"), ("q_proj",)),
    # Every module whose name ends so: the norms of each block, too.
    ("llama", ("norm",), "all-linear"),
    # What is copied has no adapter within.
    ("llama", ("mlp",), "all-linear"),
    ("llama", ("layers.0.self_attn", "lm_head"), "all-linear"),
    ("llama", ("gate_proj",), ("up_proj", "gate_proj", "v_proj")),
    ("gpt2", ("wte", "lm_head"), "all-linear"),
    ("gpt2", ("wpe", "ln_f", "attn.c_proj"), ("c_attn",)),
    ("gpt_neox", ("embed_in", "dense"), ("query_key_value",)),
    ("phi", ("lm_head", "fc1"), ("q_proj",)),
    ("qwen3", ("q_norm",), "all-linear"),
    ("mixtral", ("gate", "lm_head"), ("q_proj",)),
    ("qwen3_moe", ("experts",), ("q_proj",)),
]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("family", "names", "adapted"), COPIED)
def test_what_trains_beside_frozen_modules_is_what_peft_makes_of_them(
    family: str, names: tuple[str, ...], adapted: str | tuple[str, ...], tied: bool
) -> None:
    described = FAMILIES[family]
    experts = EXPERTS if described.expert_width else {}
    sizes = GPT2 if described.learned_positions else SMALL
    config = {"model_type": family, **sizes, **experts, "tie_word_embeddings": tied}
    peft = Peft(r=4, targets=adapted, modules_to_save=names)
    given = stage(global_batch=1, peft=peft)
    (own,) = residents(given, {"model": read_shape(config)})
    made = get_peft_model(built(config).to(torch.bfloat16), lora_config(peft, "CAUSAL_LM"))
    trained = {name: each for name, each in made.named_parameters() if each.requires_grad}
    copies = [each for name, each in trained.items() if ".modules_to_save." in name]
    assert own.whole == sum(each.numel() for each in copies)
    assert own.trained == sum(each.numel() for each in trained.values())
    assert own.parameters == count(made)
    # A copy has the precision of what it is of, an adapter has float32.
    stack = stack_of(given, Settings())
    found = states(own, stack, Settings())
    assert found.weights == sum(each.nbytes for each in made.parameters())
    assert found.gradients == sum(each.nbytes for each in trained.values())
    assert found.optimizer == 2 * found.gradients


@pytest.mark.parametrize("names", [("w1",), ("w3", "w2"), ("gate_proj",), ("up_proj", "down_proj")])
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_what_peft_refuses_of_experts_is_refused_before(
    family: str, names: tuple[str, ...]
) -> None:
    config = {"model_type": family, **SMALL, **EXPERTS}
    adapter = lora_config(Peft(targets=names), "CAUSAL_LM")
    try:
        get_peft_model(built(config), adapter)
    except ValueError:
        with pytest.raises(UsageError):
            check_adapter(stage(peft=Peft(targets=names)), read_shape(config))
    else:
        check_adapter(stage(peft=Peft(targets=names)), read_shape(config))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_module_that_may_train_whole_is_counted(config: dict[str, Any]) -> None:
    shape, model = read_shape(config), built(config)
    every = dict(model.named_modules())
    for path in {*modules.layers(shape), *modules.others(shape)} & every.keys():
        assert parameters(path, shape) == count(every[path]), path
