from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.errors import DoesNotFit, UsageError
from launcher.models.types import ModelShape
from launcher.plan.adapters import check_adapter
from launcher.plan.make import make_plan
from launcher.plan.types import Plan
from launcher.recipe.types import Peft, Stage
from tests.unit.planning import (
    EIGHTY,
    FORTY,
    LAPTOP,
    MIXED,
    chain,
    cluster,
    partition,
    pinned,
    plan,
    plan_one,
    recipe,
    shapes,
    stage,
)


@pytest.mark.parametrize(
    ("pins", "place", "way_out"),
    [
        ({"partition": "fourty"}, "stages.sft.resources.partition", "did you mean forty?"),
        ({"gpu": "h10"}, "stages.sft.resources.gpu", "did you mean h100?"),
        ({"gpu": "v100"}, "stages.sft.resources: cluster lab has no GPUs of type v100", ""),
        ({"gpus": 64}, "64 GPUs", ""),
        ({"nodes": 5}, "5 nodes", ""),
        ({"gpus": 8, "nodes": 3}, "8 GPUs on 3 nodes", ""),
        ({"zero_stage": 4}, "stages.sft.resources.zero_stage", ""),
        ({"offload": "all", "zero_stage": 2}, "stages.sft.resources.offload", "zero_stage: 3"),
        ({"offload": "optimizer", "zero_stage": 0}, "stages.sft.resources.offload", ""),
        ({"time_minutes": 2000}, "stages.sft.resources.time", ""),
        ({"gpus": 24}, "stages.sft.global_batch: 64 is not divisible by 24", "48 or 72"),
        ({"gpus": 8, "micro_batch": 3}, "stages.sft.global_batch", "48 or 72"),
        ({"cpus_per_task": 100}, "100 CPUs", ""),
        ({"host_memory_gib": 2000.0}, "stages.sft.resources.host_memory", ""),
    ],
)
def test_a_pin_that_the_cluster_cannot_keep_is_refused_with_its_place(
    pins: dict[str, Any], place: str, way_out: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_one(stage(resources=pinned(**pins)))
    assert place in caught.value.message
    assert way_out in (caught.value.hint or "")


def test_bfloat16_is_refused_on_a_gpu_without_it() -> None:
    volta = cluster(partition("volta", "v100"))
    with pytest.raises(UsageError, match=r"stages\.sft\.dtype: GPU type v100") as caught:
        plan_one(stage(model="Qwen/Qwen2.5-0.5B"), volta)
    assert "float16" in (caught.value.hint or "")
    half = plan_one(stage(model="Qwen/Qwen2.5-0.5B", dtype="float16"), volta)
    assert half.allocation.gpu == "v100"


def test_a_gpu_type_of_unknown_memory_is_refused_with_the_way_out() -> None:
    unknown = partition("new", "mystery")
    with pytest.raises(UsageError, match="memory of GPU type mystery is not known") as caught:
        plan_one(stage(), cluster(unknown))
    assert "memory_gib" in (caught.value.hint or "")
    beside = plan_one(stage(), cluster(unknown, FORTY))
    assert beside.allocation.gpu == "a100_40gb"
    assert any("mystery" in line.what for line in beside.rejected)


def test_when_nothing_fits_the_smallest_thing_that_would_is_named() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_one(stage(model="meta-llama/Llama-3.1-405B"))
    assert "stages.sft" in caught.value.message
    assert "GiB a GPU" in caught.value.message
    assert "GPUs of " in (caught.value.hint or "")


def test_more_nodes_that_are_named_do_fit() -> None:
    one_node = cluster(replace(FORTY, groups=(replace(FORTY.groups[0], nodes=1),)))
    big = stage(model="Qwen/Qwen2.5-72B")
    with pytest.raises(DoesNotFit) as caught:
        plan_one(big, one_node)
    named = int((caught.value.hint or "").split(": ")[1].split(" nodes")[0])
    enough = cluster(replace(FORTY, groups=(replace(FORTY.groups[0], nodes=named),)))
    assert plan_one(big, enough).allocation.nodes == named
    fewer = cluster(replace(FORTY, groups=(replace(FORTY.groups[0], nodes=named - 1),)))
    with pytest.raises(DoesNotFit):
        plan_one(big, fewer)


def test_an_adapter_is_offered_where_it_would_fit() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_one(stage(resources=pinned(gpus=1, offload="none")), cluster(FORTY))
    assert "an adapter (`peft`) on 1 × a100_40gb" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("method", "train", "refused"),
    [
        ("sft", {"max_length": 4096}, False),
        ("sft", {"max_length": 4097}, True),
        ("sft", {"max_length": None}, False),
        ("ppo", {"max_completion_length": 4096 - 512}, False),
        ("ppo", {"max_completion_length": 4096 - 511}, True),
        ("evaluate", {"max_completion_length": 4096}, True),
    ],
)
def test_a_length_past_the_models_context_is_refused(
    method: str, train: dict[str, Any], refused: bool
) -> None:
    given = stage(method, model="Qwen/Qwen2.5-Math-1.5B", train=train)
    if not refused:
        assert plan_one(given).runs
        return
    with pytest.raises(UsageError, match=r"past the context of Qwen/Qwen2\.5-Math-1\.5B"):
        plan_one(given)


def test_a_cpu_partition_of_a_gpu_cluster_is_not_used() -> None:
    with pytest.raises(UsageError, match="has no GPUs"):
        plan_one(stage(), cluster(partition("cpus", None)))


def test_an_unknown_model_is_refused_at_its_key() -> None:
    with pytest.raises(UsageError, match=r"stages\.sft\.model: the sizes of model `nobody/7b`"):
        plan_one(stage(model="nobody/7b"))


def test_an_unknown_stage_and_an_unknown_method_are_refused() -> None:
    lost = replace(stage(), models={"model": "stage:gone"})
    with pytest.raises(UsageError, match="there is no stage `gone`"):
        plan_one(lost)
    with pytest.raises(UsageError, match="no method `stf`") as caught:
        plan(recipe(replace(stage(), method="stf")))
    assert caught.value.hint == "did you mean sft?"


def test_a_report_is_no_model() -> None:
    whole = chain("Qwen/Qwen2.5-0.5B")
    wrong = replace(stage(), name="again", models={"model": "stage:eval"})
    with pytest.raises(UsageError, match="makes no model"):
        plan(recipe(*whole.stages, wrong))


def test_evaluation_refuses_what_only_training_has() -> None:
    for pins in ({"zero_stage": 2}, {"offload": "optimizer"}):
        with pytest.raises(UsageError, match=r"stages\.evaluate\.resources"):
            plan_one(stage("evaluate", resources=pinned(**pins)))


def test_more_processes_than_cpu_nodes_are_refused() -> None:
    with pytest.raises(UsageError, match="2 nodes"):
        plan_one(stage(model="tiny", resources=pinned(nodes=2)), LAPTOP)


def test_a_stage_pinned_to_a_partition_looks_nowhere_else() -> None:
    each = plan_one(stage(resources=pinned(partition="eighty")), MIXED)
    assert each.allocation.partition == EIGHTY.name


@pytest.mark.parametrize(
    ("peft", "said"),
    [
        (Peft(targets=("q_proj", "k_prj")), "targets: Qwen/Qwen2.5-7B has no linear layer or"
         " embedding called 'k_prj'; did you mean 'k_proj'?"),
        (Peft(targets=("input_layernorm",)), "targets: Qwen/Qwen2.5-7B has no linear layer"),
        (Peft(targets=("layers.28.self_attn.q_proj",)), "called 'layers.28.self_attn.q_proj'"),
        (Peft(targets=()), "targets: no layer is named"),
        (Peft(targets="all-linera"), "targets: 'all-linera' is taken as a pattern, and no layer of"
         " Qwen/Qwen2.5-7B has such a path; did you mean 'all-linear'?"),
        (Peft(targets="q_(proj"), "targets: 'q_(proj' is no regular expression"),
        (Peft(modules_to_save=("nonesuch",)), "modules_to_save: Qwen/Qwen2.5-7B has no module"
         " called 'nonesuch'"),
        (Peft(modules_to_save=("lm_haed",)), "did you mean 'lm_head'?"),
    ],
)  # fmt: skip
def test_a_module_that_the_model_has_not_is_refused(peft: Peft, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_one(stage(peft=peft))
    assert caught.value.message.startswith("stages.sft.peft.")
    assert said in caught.value.message


@pytest.mark.parametrize(
    "peft",
    [
        Peft(targets="ALL-linear"),
        Peft(targets=r".*\.(q|v)_proj"),
        Peft(targets=r"model\.layers\.(1\d|2[0-7])\.mlp\..*"),
        Peft(targets=("self_attn.q_proj", "layers.27.mlp.up_proj", "embed_tokens")),
        Peft(modules_to_save=("embed_tokens", "lm_head", "score", "norm", "layers.0.mlp")),
        Peft(targets=("q_proj", "lm_head"), modules_to_save=("lm_head",)),
    ],
)
def test_modules_are_named_as_peft_takes_them(peft: Peft) -> None:
    assert plan_one(stage(peft=peft)).stage.peft == peft


@pytest.mark.parametrize(
    ("model", "targets", "said"),
    [
        ("mistralai/Mixtral-8x7B-v0.1", ("w1",), "w1 and w3 as one matrix, and w3 is not"),
        ("mistralai/Mixtral-8x7B-v0.1", ("q_proj", "experts.w3"), "and w1 is not among"),
        ("Qwen/Qwen3-30B-A3B", ("up_proj", "down_proj"), "and gate_proj is not among"),
        ("mistralai/Mixtral-8x7B-v0.1", ("w1", "w2", "w3"), None),
        ("mistralai/Mixtral-8x7B-v0.1", ("w2",), None),
        ("Qwen/Qwen3-30B-A3B", ("gate_proj", "up_proj"), None),
        # Here they are layers of the shared expert.
        ("Qwen/Qwen1.5-MoE-A2.7B", ("gate_proj",), None),
    ],
)
def test_matrices_of_experts_that_are_one_are_adapted_together(
    model: str, targets: tuple[str, ...], said: str | None
) -> None:
    given = stage(peft=Peft(targets=targets))
    if said is None:
        check_adapter(given, shapes(model))
        return
    with pytest.raises(UsageError, match=said) as caught:
        check_adapter(given, shapes(model))
    assert caught.value.message.startswith("stages.sft.peft.targets: the experts of")


@pytest.mark.parametrize("targets", [("q_proj", "lm_head"), r".*q_proj|lm_head"])
def test_an_adapter_on_a_head_that_trl_reads_past_is_refused(
    targets: str | tuple[str, ...],
) -> None:
    for method in ("sft", "ppo"):
        with pytest.raises(UsageError, match="would not train with") as caught:
            plan_one(stage(method, peft=Peft(targets=targets)))
        assert "`modules_to_save: [lm_head]`" in (caught.value.hint or "")
    assert plan_one(stage("reward", peft=Peft(targets=targets)))


def test_nothing_is_said_of_modules_where_the_family_is_not_known() -> None:
    assert plan_one(stage(model="tiny", peft=Peft(targets=("own_proj",))))


def test_an_adapter_on_the_hub_is_no_model_to_train() -> None:
    def look_up(reference: str) -> ModelShape:
        adapter = reference == "me/adapter"
        return replace(shapes("Qwen/Qwen2.5-7B"), name=reference, adapter=adapter)

    def made(*stages: Stage) -> Plan:
        return make_plan(recipe(*stages), MIXED, look_up, trl_version="1.16.0")

    with pytest.raises(UsageError, match=r"stages\.sft\.model: me/adapter is an adapter, and no"):
        made(stage(model="me/adapter"))
    after = replace(stage("reward"), models={"model": "stage:sft"}, needs=("sft",))
    with pytest.raises(UsageError, match=r"stages\.reward\.model: me/adapter is an adapter"):
        made(replace(stage(), use="me/adapter"), after)
    # What only reads may be one: transformers loads it on its base.
    assert made(replace(stage("evaluate"), candidates={"one": "me/adapter"}))


def test_a_plan_says_whose_sizes_a_models_revision_is_given() -> None:
    both = replace(stage(model="Qwen/Qwen2.5-0.5B@v1"), name="two")
    made = plan(recipe(stage(model="Qwen/Qwen2.5-0.5B@v1"), both))
    said = "Qwen/Qwen2.5-0.5B@v1: the sizes are those of Qwen/Qwen2.5-0.5B's main revision."
    assert made.notes == (said,)
    assert plan(recipe(stage())).notes == ()
