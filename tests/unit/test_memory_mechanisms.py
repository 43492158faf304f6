"""Mechanisms of other software, and of large models, each told by what it moves."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.memory.estimate import estimate
from launcher.memory.lora import adapter_parameters
from launcher.memory.process import CONTEXT
from launcher.memory.stack import Stack
from launcher.memory.states import SUB_GROUP
from launcher.memory.types import GIB, MemoryEstimate
from launcher.plan.candidates import variants
from launcher.plan.deepspeed import shipped_bases
from launcher.plan.evidence import Evidence
from launcher.plan.layouts import layouts
from launcher.plan.search import Search
from launcher.recipe.types import Peft
from tests.unit import planning
from tests.unit.planning import settings, shapes, stage

LARGE = "Qwen/Qwen2.5-72B"
HALF = Stack(compute="bfloat16", weights="bfloat16", loss="stock", optimizer="adamw_torch")


def of(
    stack: Stack | None = None, model: str = "Qwen/Qwen2.5-7B", given: Any = None, **keywords: Any
) -> MemoryEstimate:
    return estimate(given or stage(), {"model": shapes(model)}, settings(**keywords), stack)


def items(found: MemoryEstimate, phase: str) -> dict[str, int]:
    return dict(next(each.items for each in found.phases if each.name == phase))


def test_zero_3_updates_a_part_of_a_large_models_states_at_a_time() -> None:
    sharded: dict[str, Any] = {"processes": 16, "processes_per_node": 8, "zero_stage": 3}
    step = items(of(model=LARGE, **sharded), "step")["optimizer step"]
    assert 4 * SUB_GROUP <= step < 4 * 1.1 * SUB_GROUP
    small = items(of(**sharded), "step")["optimizer step"]
    assert small == pytest.approx(4 * shapes("Qwen/Qwen2.5-7B").parameters / 16)


def test_modules_that_train_whole_beside_adapters_keep_the_bases_precision() -> None:
    def trained(*names: str) -> int:
        adapted = stage(peft=Peft(modules_to_save=names))
        return items(of(given=adapted), "step")["gradients"]

    head = shapes("Qwen/Qwen2.5-7B").embedding_parameters
    assert trained("lm_head") - trained() == 2 * head


def test_padded_rows_have_a_mask_of_every_pair_of_tokens_in_every_block() -> None:
    def kept(attention: str | None, rows: int, **train: Any) -> float:
        if attention is not None:
            train["model_init_kwargs"] = {"attn_implementation": attention}
        given = stage(train={"max_length": 4096, **train})
        return items(of(given=given, micro_batch=rows), "loss")["activations"] / rows

    shape, tokens = shapes("Qwen/Qwen2.5-7B"), 4096
    flash = kept("flash_attention_2", 2)
    # In each block two bytes a pair, and keys and values for every query head in bfloat16.
    mask = shape.layers * 2 * tokens * tokens
    repeated = shape.layers * 2 * 2 * (shape.heads - shape.kv_heads) * shape.head_dim * tokens
    assert kept(None, 2) - flash == pytest.approx(mask + repeated + tokens * tokens, rel=0.05)
    assert kept(None, 1) == pytest.approx(kept("flash_attention_2", 1))


def test_a_mixture_of_experts_has_an_adapter_for_each_expert_folded_into_its_matrices() -> None:
    name = "Qwen/Qwen3-30B-A3B"
    given = stage(peft=Peft())
    held = items(of(given=given, model=name, gradient_checkpointing=True), "loss")
    shape = shapes(name)
    experts = 3 * shape.experts * shape.hidden * shape.intermediate
    # A block's whole matrices are there again while it is computed.
    assert held["activations"] > 2 * experts
    stored = items(of(given=given, model=name), "loss")
    assert stored["activations"] > 2 * experts * shape.layers
    attention = stage(peft=Peft(targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    assert items(of(given=attention, model=name), "loss")["activations"] < 2 * experts * 24


def test_adapters_on_experts_are_as_many_as_peft_makes() -> None:
    mixtral, qwen = shapes("mistralai/Mixtral-8x7B-v0.1"), shapes("Qwen/Qwen3-30B-A3B")
    # Counted in models that PEFT 0.21 had wrapped, of one block.
    assert adapter_parameters(Peft(), mixtral) == 32 * 11_239_552
    each = 32 * 128 * (2048 + 1536) + 16 * 128 * (2048 + 768) + 16 * (2048 + 128)
    assert adapter_parameters(Peft(), qwen) > 48 * each
    named = Peft(targets=("w1", "w2", "w3"))
    assert adapter_parameters(named, mixtral) == 32 * (11_239_552 - 425_984 - 65_664)


def test_the_balance_of_experts_keeps_router_logits_of_every_block() -> None:
    name, rows = "Qwen/Qwen3-30B-A3B", 8
    given = stage(peft=Peft(targets=("q_proj",)), train={"max_length": 2048})
    alone = stage(
        peft=Peft(targets=("q_proj",)), train={"max_length": 2048, "router_aux_loss_coef": 0}
    )
    options: dict[str, Any] = {"model": name, "micro_batch": rows, "gradient_checkpointing": True}
    more = items(of(given=given, **options), "backward")["activations"]
    more -= items(of(given=alone, **options), "backward")["activations"]
    assert more == pytest.approx(48 * rows * 2048 * 128 * 2, rel=0.06)


def test_fsdp_with_its_parameters_on_the_host_keeps_none_on_the_device() -> None:
    fsdp = Stack(weights="float32", sharding="fsdp", autocast=True, loss="stock")
    keywords: dict[str, Any] = {"processes": 4, "processes_per_node": 4, "zero_stage": 3}
    near, far = of(fsdp, **keywords), of(fsdp, offload="all", **keywords)
    assert items(near, "backward")["weights"] > 0
    assert "weights" not in items(far, "backward")
    assert items(far, "backward")["gathered weights"] == items(near, "backward")["gathered weights"]
    assert far.host_bytes - near.host_bytes > 4 * shapes("Qwen/Qwen2.5-7B").parameters / 4


def test_the_pool_of_a_loss_grows_with_what_a_block_used_and_not_with_the_weights() -> None:
    def idle(phase: str, stack: Stack, micro: int) -> float:
        found = of(stack, micro_batch=micro, gradient_checkpointing=True)
        return items(found, phase)["fragmentation"] / GIB

    assert idle("loss", HALF, 8) == pytest.approx(2 * idle("loss", HALF, 4), rel=0.1)
    assert idle("loss", HALF, 4) < 2
    assert items(of(HALF), "step")["fragmentation"] / GIB > 3


def test_segments_that_grow_leave_little_idle() -> None:
    found = of(gradient_checkpointing=True)
    for phase in found.phases:
        rest = phase.total - phase.items["fragmentation"] - CONTEXT
        assert phase.items["fragmentation"] <= 0.0401 * rest


@pytest.mark.parametrize("peft", [None, Peft()])
@pytest.mark.parametrize("method", ["sft", "reward", "ppo"])
def test_what_the_search_rules_out_by_does_not_exceed_the_estimate(method: str, peft: Any) -> None:
    given = stage(method, peft=peft, global_batch=64)
    roles = {role: shapes("Qwen/Qwen2.5-7B") for role in given.models}
    search = Search(given, roles, planning.MIXED, shipped_bases(), Evidence())
    for layout in layouts(planning.MIXED, given)[:4]:
        micro, accumulation = search.batches(layout.processes)[0]
        for offload in (False, True):
            for each in variants(given, layout, "cuda", None, shipped_bases(), offload=offload):
                asked = settings(**each, micro_batch=micro, accumulation=accumulation)
                assert search._fixed(asked) <= search.estimate(asked).peak.total
