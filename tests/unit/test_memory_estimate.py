from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.memory.estimate import estimate
from launcher.memory.lora import adapter_parameters
from launcher.memory.types import GIB, MemoryEstimate
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft, Stage
from tests.unit import planning
from tests.unit.planning import settings, shapes, stage

SEVEN = shapes("Qwen/Qwen2.5-7B")
P = SEVEN.parameters
ROLES = ("model", "policy", "reward_model", "reference", "candidate")


def of(given: Stage, shape: ModelShape = SEVEN, **keywords: Any) -> MemoryEstimate:
    roles = {role: shape for role in ROLES if role in given.models}
    if given.method == "evaluate":
        roles["candidate"] = shape
    return estimate(given, roles, settings(**keywords))


def items(found: MemoryEstimate, phase: str) -> dict[str, int]:
    return dict(next(each.items for each in found.phases if each.name == phase))


def test_full_training_in_one_process_takes_sixteen_bytes_a_parameter() -> None:
    found = items(of(stage()), "step")
    states = found["weights"] + found["gradients"] + found["optimizer"]
    assert states == 16 * P


def test_autocast_keeps_a_half_precision_copy_of_every_matrix_until_its_backward_pass() -> None:
    matrices = SEVEN.layers * (SEVEN.layer_parameters - 2 * SEVEN.hidden)
    copies = items(of(stage()), "loss")["autocast copies"]
    assert copies == pytest.approx(2 * matrices, rel=0.001)


def test_float32_needs_no_copies_for_autocast() -> None:
    found = items(of(stage(dtype="float32")), "backward")
    assert "autocast copies" not in found
    assert found["weights"] == 4 * P


def test_zero_2_keeps_whole_weights_and_divides_the_rest() -> None:
    found = items(of(stage(), processes=8, zero_stage=2), "step")
    assert found["weights"] == 2 * P
    assert found["gradients"] + found["optimizer"] == pytest.approx((4 + 12) * P / 8)
    # A double of the largest parameter: its norm.
    assert found["optimizer step"] == 8 * SEVEN.embedding_parameters


def test_zero_3_divides_weights_too() -> None:
    found = items(of(stage(), processes=8, zero_stage=3), "step")
    assert found["weights"] == 2 * P // 8


def test_an_adapter_keeps_its_base_in_two_bytes_and_trains_itself_in_sixteen() -> None:
    adapter = adapter_parameters(Peft(), SEVEN)
    found = items(of(stage(peft=Peft())), "step")
    assert found["weights"] == 2 * P + 4 * adapter
    assert found["gradients"] + found["optimizer"] == 12 * adapter


def test_adapters_of_rank_16_on_all_linear_layers_have_the_known_number_of_parameters() -> None:
    # As peft prints it for Qwen2.5-7B.
    assert adapter_parameters(Peft(r=16), SEVEN) == 40_370_176


@pytest.mark.parametrize("adapted", [("q_proj",), ("q_proj", "down_proj"), "all-linear"])
def test_adapters_on_more_layers_are_larger(adapted: Any) -> None:
    some = adapter_parameters(Peft(targets=("k_proj",)), SEVEN)
    assert adapter_parameters(Peft(targets=adapted), SEVEN) > some


def test_offload_moves_states_from_the_gpu_to_the_host() -> None:
    on_gpu = of(stage(), processes=8, zero_stage=3)
    offloaded = of(stage(), processes=8, zero_stage=3, offload="optimizer")
    gone = on_gpu.peak.items["optimizer"] + on_gpu.peak.items["gradients"]
    assert offloaded.host_bytes - on_gpu.host_bytes >= gone
    assert "optimizer" not in offloaded.peak.items
    all_gone = of(stage(), processes=8, zero_stage=3, offload="all")
    assert "weights" not in all_gone.peak.items


def test_a_reward_model_has_no_logits_and_reads_two_sequences_a_row() -> None:
    sft, reward = of(stage("sft"), micro_batch=2), of(stage("reward"), micro_batch=2)
    assert items(reward, "loss")["logits"] < items(sft, "loss")["logits"] / 10
    twice = 2 * items(sft, "loss")["activations"]
    assert items(reward, "loss")["activations"] == pytest.approx(twice, rel=0.001)


def test_ppo_holds_policy_reference_and_reward_model() -> None:
    found = items(of(stage("ppo"), processes=8, zero_stage=2), "rollout")
    assert found["reference"] == 2 * P
    assert 0.9 * 2 * P < found["reward model"] < 2 * P
    assert found["kv cache"] == 1024 * 2 * 28 * 4 * 128 * 2


def test_ppo_needs_no_reference_with_an_adapter_or_without_a_penalty() -> None:
    assert "reference" not in items(of(stage("ppo", peft=Peft())), "rollout")
    assert "reference" not in items(of(stage("ppo", train={"kl_coef": 0.0})), "rollout")


def test_a_reference_of_its_own_stays_in_memory_beside_an_adapter() -> None:
    given = stage("ppo", peft=Peft())
    given = replace(given, models={**given.models, "reference": "stage:other"})
    assert items(of(given), "rollout")["reference"] == 2 * P


def test_a_node_that_may_build_deepspeeds_kernels_has_room_for_two_compilers() -> None:
    built = {"DeepSpeed's kernel build": 3 * GIB}
    assert of(stage(), device="cpu", processes=2, zero_stage=2).node_items == built
    assert of(stage(), processes=8, zero_stage=3, offload="optimizer").node_items == built
    assert of(stage(), processes=8, zero_stage=3).node_items == {}
    assert of(stage(), device="cpu", processes=2).node_items == {}


def test_a_separate_value_model_trains_beside_the_policy() -> None:
    given = stage("ppo")
    roles = dict.fromkeys(("policy", "reward_model", "reference"), SEVEN)
    shared = estimate(given, roles, settings())
    own = estimate(given, roles | {"value_model": SEVEN}, settings())
    more = items(own, "backward")["optimizer"] - items(shared, "backward")["optimizer"]
    assert more == pytest.approx(8 * SEVEN.trunk_parameters, rel=0.01)


def test_all_completions_of_a_step_are_generated_at_once() -> None:
    one = of(stage("ppo"), micro_batch=8, accumulation=1)
    four = of(stage("ppo"), micro_batch=2, accumulation=4)
    assert items(one, "rollout")["kv cache"] == items(four, "rollout")["kv cache"]
    share = items(four, "loss")["activations"] / items(one, "loss")["activations"]
    assert share == pytest.approx(1 / 4, rel=0.001)


def test_zero_3_gathers_the_policy_to_generate_unless_told_not_to() -> None:
    whole = of(stage("ppo"), processes=8, zero_stage=3)
    parts = of(stage("ppo"), processes=8, zero_stage=3, gather_for_generation=False)
    assert items(whole, "rollout")["gathered weights"] >= 2 * P
    assert items(parts, "rollout")["gathered weights"] < P


def test_evaluation_holds_one_model_at_a_time() -> None:
    found = of(stage("evaluate"))
    assert [phase.name for phase in found.phases] == ["load", "generate", "score", "reward"]
    assert items(found, "generate")["weights"] == items(found, "score")["weights"] == 2 * P
    assert items(found, "reward")["weights"] < 2 * P
    assert "logits" not in items(found, "reward")


def test_evaluation_without_a_reference_still_reads_its_candidates() -> None:
    given = stage("evaluate")
    given = replace(given, models={"reward_model": given.models["reward_model"]})
    assert items(of(given), "score")["weights"] == 2 * P


def test_whole_weights_are_gathered_on_the_host_of_rank_0_module_by_module() -> None:
    found = of(stage(), processes=8, processes_per_node=8, zero_stage=3)
    step, save = items(found, "step"), items(found, "save")
    assert save["gathered weights"] == 2 * SEVEN.embedding_parameters
    assert "optimizer step" not in save and save["optimizer"] == step["optimizer"]
    assert "gathered weights" not in items(of(stage(), processes=8, zero_stage=2), "save")


def test_an_adapter_is_merged_into_a_base_that_is_loaded_again_on_the_host() -> None:
    plain = of(stage(peft=Peft())).host_bytes
    delta = 10 * SEVEN.hidden * SEVEN.intermediate
    assert plain == 8 * GIB + 2 * P + delta
    packed = of(stage(peft=Peft(quantization="nf4-double"))).host_bytes
    assert packed - plain == pytest.approx(0.516 * 28 * 233_046_016, rel=0.01)
    on_cpu = of(stage(peft=Peft()), device="cpu")
    assert items(on_cpu, "save")["saved model"] == 2 * P + delta


def test_a_model_that_trains_in_float32_passes_the_host_in_float32() -> None:
    assert of(stage()).host_bytes == 8 * GIB + 4 * P


def test_deepspeed_gives_an_optimizer_a_float32_vector_and_it_keeps_what_it_keeps_of_one() -> None:
    def held(name: str, zero: int) -> tuple[float, float]:
        found = items(of(stage(train={"optim": name}), processes=8, zero_stage=zero), "step")
        return found["optimizer"] * 8 / P, found["optimizer step"] * 8 / P

    assert held("adamw_torch_fused", 3) == pytest.approx((12, 4), rel=1e-6)
    # The foreach kernel's copy is as large as the part that is stepped.
    assert held("adamw_torch", 3) == pytest.approx((12, 8), rel=1e-6)
    assert held("adamw_torch", 1) == pytest.approx((12, 8), rel=1e-6)
    # A vector has no rows and columns: its whole second moment, and two tensors at the update.
    assert held("adafactor", 3) == pytest.approx((8, 12), rel=1e-6)
    assert held("ademamix", 3) == pytest.approx((16, 4), rel=1e-6)
    assert held("sgd", 3) == pytest.approx((4, 4), rel=1e-6)
    assert held("adamw_8bit", 2)[0] == pytest.approx(4 + 2 + 8 / 256, rel=1e-6)


def test_an_optimizer_that_is_not_known_counts_as_the_most_that_is() -> None:
    one = items(of(stage(train={"optim": "none_such"})), "step")["optimizer"]
    assert one >= items(of(stage(train={"optim": "ademamix"})), "step")["optimizer"] == 12 * P


def test_checkpointing_takes_less_in_the_loss_and_never_more_in_all() -> None:
    for method in ("sft", "reward", "ppo"):
        stored = of(stage(method), micro_batch=4)
        recomputed = of(stage(method), micro_batch=4, gradient_checkpointing=True)
        assert recomputed.peak.total < stored.peak.total


def test_tiles_of_logits_are_unfolded_in_float32_on_cpu() -> None:
    on_cpu = of(stage(), device="cpu", micro_batch=8)
    on_cuda = of(stage(), device="cuda", micro_batch=8)
    assert items(on_cpu, "loss")["logits"] > 5 * 4096 * 32768 * 4
    assert items(on_cuda, "loss")["logits"] < items(on_cpu, "loss")["logits"] / 3


def test_a_cpu_process_asks_the_host_for_what_a_gpu_would_hold() -> None:
    found = of(stage(model="tiny"), planning.TINY, device="cpu")
    assert found.peak.total < found.host_bytes < 4 * GIB


def test_an_llama_3_8b_reproduces_the_traced_peak_of_its_states() -> None:
    # Traced at micro-batch 2 × 2048 with checkpointing, float32 weights under autocast: 119.8 GiB.
    shape = shapes("meta-llama/Llama-3.1-8B")
    found = of(stage(train={"max_length": 2048}), shape, micro_batch=2, gradient_checkpointing=True)
    held = items(found, "backward")
    states = held["weights"] + held["gradients"] + held["optimizer"]
    assert states / GIB == pytest.approx(119.8, rel=0.01)


def grown() -> list[tuple[ModelShape, dict[str, Any], dict[str, Any]]]:
    """Shape, train and settings, each with one thing larger than the base case."""
    cases: list[tuple[ModelShape, dict[str, Any], dict[str, Any]]] = []
    for larger in (
        replace(SEVEN, layers=29),
        replace(SEVEN, vocab=160_000),
        replace(SEVEN, intermediate=20_000),
        replace(SEVEN, kv_heads=7),
    ):
        cases.append((larger, {}, {}))
    cases.append((SEVEN, {"max_length": 2048, "max_completion_length": 1024}, {}))
    cases.append((SEVEN, {}, {"micro_batch": 4}))
    return cases


@pytest.mark.parametrize("method", ["sft", "reward", "ppo", "evaluate"])
@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("peft", [None, Peft()])
def test_the_peak_never_falls_when_something_grows(
    method: str, zero: int, peft: Peft | None
) -> None:
    base_settings: dict[str, Any] = {"processes": 8, "zero_stage": zero, "micro_batch": 2}
    base = of(stage(method, peft=peft), **base_settings).peak.total
    for shape, train, more in grown():
        larger = of(stage(method, peft=peft, train=train), shape, **(base_settings | more))
        assert larger.peak.total >= base


@pytest.mark.parametrize("method", ["sft", "reward", "ppo"])
def test_model_states_never_rise_with_zero_or_with_more_gpus(method: str) -> None:
    def held(zero: int, processes: int) -> int:
        found = items(of(stage(method), processes=processes, zero_stage=zero), "backward")
        names = ("weights", "gradients", "optimizer", "reference", "reward model")
        return sum(found.get(name, 0) for name in names)

    by_stage = [held(zero, 8) for zero in (1, 2, 3)]
    assert by_stage == sorted(by_stage, reverse=True)
    for zero in (1, 2, 3):
        by_count = [held(zero, n) for n in (2, 4, 8, 16)]
        assert by_count == sorted(by_count, reverse=True)


def test_items_sum_to_the_total_and_the_largest_phase_is_the_peak() -> None:
    found = of(stage("ppo"), processes=8, zero_stage=3)
    assert {phase.name for phase in found.phases} == {
        "load",
        "rollout",
        "score",
        "loss",
        "backward",
        "step",
        "save",
    }
    for phase in found.phases:
        assert phase.total == sum(phase.items.values())
        assert all(size > 0 for size in phase.items.values())
    assert found.peak.total == max(phase.total for phase in found.phases)
