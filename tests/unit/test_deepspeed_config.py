from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.plan.deepspeed import buckets, deepspeed_config, shipped_bases
from tests.unit.planning import pinned, plan_one, settings, stage


def config(zero: int, trained: int = 10**9, **keywords: Any) -> dict[str, Any]:
    given = stage(**{key: keywords.pop(key) for key in ("train", "dtype") if key in keywords})
    chosen = settings(processes=8, zero_stage=zero, micro_batch=2, accumulation=4, **keywords)
    return deepspeed_config(given, chosen, shipped_bases()[zero], trained)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_nothing_is_left_to_be_found_out(zero: int) -> None:
    made = config(zero)
    assert "auto" not in json.dumps(made)
    assert made["zero_optimization"]["stage"] == zero
    assert made["train_micro_batch_size_per_gpu"] == 2
    assert made["gradient_accumulation_steps"] == 4
    assert made["train_batch_size"] == 64


@pytest.mark.parametrize(
    ("dtype", "bf16", "fp16"),
    [("bfloat16", True, False), ("float16", False, True), ("float32", False, False)],
)
def test_the_precision_is_the_stages(dtype: str, bf16: bool, fp16: bool) -> None:
    made = config(2, dtype=dtype)
    assert (made["bf16"]["enabled"], made["fp16"]["enabled"]) == (bf16, fp16)
    assert ("data_types" in made) == (dtype != "float32")


@pytest.mark.parametrize(("train", "clipping"), [({}, 1.0), ({"max_grad_norm": 0.5}, 0.5)])
def test_gradients_are_clipped_as_the_recipe_says(train: dict[str, Any], clipping: float) -> None:
    assert config(2, train=train)["gradient_clipping"] == clipping


def test_offload_is_written_where_it_was_chosen() -> None:
    assert "offload_optimizer" not in config(3)["zero_optimization"]
    optimizer = config(3, offload="optimizer")["zero_optimization"]
    assert optimizer["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in optimizer
    assert config(3, offload="all")["zero_optimization"]["offload_param"]["device"] == "cpu"


def test_on_cpu_deepspeed_takes_any_optimizer() -> None:
    made = config(2, device="cpu")
    assert made["zero_force_ds_cpu_optimizer"] is False
    assert made["zero_allow_untested_optimizer"] is True
    assert "zero_force_ds_cpu_optimizer" not in config(2, device="cuda")


def test_no_bucket_is_larger_than_what_trains() -> None:
    assert config(2, trained=5000)["zero_optimization"]["reduce_bucket_size"] == 5120
    large = config(2, trained=10**10)["zero_optimization"]["reduce_bucket_size"]
    assert large == shipped_bases()[2]["zero_optimization"]["reduce_bucket_size"]


def test_filling_in_leaves_the_base_as_it_was() -> None:
    before = json.dumps(shipped_bases()[3])
    config(3, trained=1000, offload="all", device="cpu")
    assert json.dumps(shipped_bases()[3]) == before


def test_the_estimate_is_told_the_buckets_of_the_configuration() -> None:
    assert buckets(shipped_bases()[3])["live_parameters"] == 500_000_000


def test_a_plan_without_zero_has_no_deepspeed() -> None:
    assert plan_one(stage(model="tiny", resources=pinned(gpus=1))).deepspeed is None
    assert plan_one(stage(model="tiny", resources=pinned(gpus=2, zero_stage=1))).deepspeed
