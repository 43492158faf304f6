from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.models.cache import hub_cache
from launcher.models.config import config_of
from launcher.models.find import Places, shape_of
from launcher.models.read import read_shape
from launcher.models.table import rows, table

QWEN = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}

MIXTURE = QWEN | {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(next(iter(row["names"]))))
def test_a_shape_of_the_table_has_the_published_number_of_parameters(row: dict[str, Any]) -> None:
    assert {table()[name].parameters for name in row["names"]} == {row["parameters"]}


def test_names_of_the_table_are_unlike_each_other_in_any_case() -> None:
    names = [name.lower() for row in rows() for name in row["names"]]
    assert len(names) == len(set(names))


def test_a_config_and_the_table_give_the_same_sizes() -> None:
    read, known = read_shape(QWEN), table()["Qwen/Qwen2.5-0.5B"]
    assert read.parameters == known.parameters == 494_032_768
    assert read.head_dim == 64
    assert read.max_positions == 32768
    assert read.source == "config.json"


def test_a_head_size_of_its_own_is_read() -> None:
    config = QWEN | {"model_type": "qwen3", "head_dim": 128}
    assert read_shape(config).head_dim == 128
    assert read_shape(config).qk_norm


def test_embeddings_are_tied_by_default_in_the_families_that_do_so() -> None:
    silent = {key: value for key, value in QWEN.items() if key != "tie_word_embeddings"}
    assert not read_shape(silent).tied_embeddings
    assert read_shape(silent | {"model_type": "gemma2"}).tied_embeddings


def test_the_experts_of_a_mixture_are_counted_and_those_of_a_token_apart() -> None:
    shape = read_shape(MIXTURE)
    assert (shape.experts, shape.experts_per_token, shape.intermediate) == (8, 2, 512)
    one = 3 * shape.hidden * 512
    assert shape.parameters - shape.active_parameters == shape.layers * 6 * one
    dense = read_shape(QWEN)
    assert dense.active_parameters == dense.parameters


def test_a_mixture_whose_first_blocks_are_dense_counts_them_apart() -> None:
    shape = read_shape(MIXTURE | {"mlp_only_layers": [0, 1]})
    assert (shape.dense_layers, shape.dense_intermediate) == (2, 4864)
    lighter = 8 * 3 * 896 * 512 + 8 * 896 - 3 * 896 * 4864
    assert read_shape(MIXTURE).parameters - shape.parameters == 2 * lighter


def test_a_window_counts_only_where_every_block_has_it() -> None:
    assert table()["mistralai/Mistral-7B-v0.1"].sliding_window == 4096
    assert table()["mistralai/Mistral-7B-v0.3"].sliding_window is None
    assert table()["google/gemma-2-9b"].sliding_window is None


def test_a_shape_and_the_config_that_it_gives_are_one() -> None:
    for name, shape in table().items():
        assert read_shape(config_of(shape), name, "table") == shape


@pytest.mark.parametrize("left_out", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_size_is_named_and_not_guessed(left_out: str) -> None:
    config = {key: value for key, value in QWEN.items() if key != left_out}
    with pytest.raises(UsageError, match=left_out):
        read_shape(config, name="mine-7b")


@pytest.mark.parametrize(
    "config",
    [
        QWEN | {"num_experts": 60},
        {"model_type": "gemma3", "text_config": QWEN},
        QWEN | {"is_encoder_decoder": True},
        QWEN | {"hidden_size": True},
        QWEN | {"hidden_size": "896"},
        QWEN | {"model_type": "deepseek_v3"},
        QWEN | {"model_type": "a family of tomorrow"},
        {key: value for key, value in QWEN.items() if key != "model_type"},
        MIXTURE | {"decoder_sparse_step": 2},
        MIXTURE | {"mlp_only_layers": [1]},
        QWEN | {"model_type": "phi", "qk_layernorm": True},
    ],
)
def test_what_is_not_a_decoder_of_a_known_kind_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_shape(config)


def test_a_folder_is_read_before_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "it's a model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN | {"num_hidden_layers": 2}))
    assert shape_of(str(folder)).layers == 2


def test_a_folder_with_an_adapter_has_the_shape_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "Qwen/Qwen2.5-7B"})
    )
    assert shape_of(str(tmp_path)).parameters == 7_615_616_512


def test_an_adapter_that_names_itself_as_its_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path)})
    )
    with pytest.raises(UsageError, match=r"no config\.json"):
        shape_of(str(tmp_path))


def test_the_hub_cache_is_read_at_the_revision_of_main(tmp_path: Path) -> None:
    repository = tmp_path / "models--Qwen--Qwen2.5-7B"
    for revision, layers in (("aaa", 1), ("bbb", 3)):
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(QWEN | {"num_hidden_layers": layers}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb\n")
    shape = shape_of("Qwen/Qwen2.5-7B", Places(tmp_path))
    assert (shape.layers, shape.source) == (3, "hub cache")


def test_a_model_at_a_revision_is_that_of_the_cache_or_else_the_tables_main(tmp_path: Path) -> None:
    repository, commit = tmp_path / "models--Qwen--Qwen2.5-7B", "c" * 40
    for folder, layers in ((commit, 1), ("bbb", 3)):
        snapshot = repository / "snapshots" / folder
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(QWEN | {"num_hidden_layers": layers}))
    (repository / "refs" / "pr").mkdir(parents=True)
    for name, folder in (("v1.0", commit), ("pr/1", commit), ("main", "bbb")):
        (repository / "refs" / name).write_text(folder)
    for revision in ("v1.0", "pr/1", commit):
        shape = shape_of(f"Qwen/Qwen2.5-7B@{revision}", Places(tmp_path))
        assert (shape.layers, shape.source) == (1, "hub cache")
        assert not shape.of_main
    # The cache's `main` is of no other revision; the table's has its word on it.
    for revision in ("v2.0", "d" * 40):
        name = f"Qwen/Qwen2.5-7B@{revision}"
        shape = shape_of(name, Places(tmp_path))
        assert (shape.name, shape.layers, shape.source) == (name, 28, "table")
        assert shape.of_main
        stated = shape_of(name, Places(tmp_path, {name: QWEN}))
        assert (stated.layers, stated.source, stated.of_main) == (24, "recipe", False)


def test_a_revision_of_a_model_that_nothing_knows_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        shape_of("somebody/secret-7b@v2.0")
    assert caught.value.hint is not None
    assert "`hf download somebody/secret-7b config.json --revision v2.0`" in caught.value.hint


def test_without_the_model_in_the_cache_the_table_is_asked(tmp_path: Path) -> None:
    assert shape_of("qwen/qwen2.5-7b", Places(tmp_path)).source == "table"


def test_a_model_that_no_file_knows_has_the_shape_that_the_recipe_states() -> None:
    shape = shape_of("somebody/secret-7b", Places(stated={"somebody/secret-7b": QWEN}))
    assert (shape.name, shape.layers, shape.source) == ("somebody/secret-7b", 24, "recipe")


def test_an_unknown_model_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        shape_of("Qwen/Qwen2.5-7B-Instrct")
    assert caught.value.hint is not None
    assert "did you mean Qwen/Qwen2.5-7B-Instruct?" in caught.value.hint
    with pytest.raises(UsageError):
        shape_of("somebody/secret-7b")


def test_a_config_that_is_no_json_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"HF_HOME": "/scratch/hf"}, "/scratch/hf/hub"),
        ({"HF_HOME": "/scratch/hf", "HF_HUB_CACHE": "/fast"}, "/fast"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/huggingface/hub"),
    ],
)
def test_the_root_of_the_cache_follows_the_environment(
    environment: dict[str, str], root: str
) -> None:
    assert hub_cache(environment, Path("/home/me")) == Path(root)
