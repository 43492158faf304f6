"""What holds of every estimate, over models, methods and settings that nobody chose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from launcher.memory.estimate import estimate
from launcher.memory.types import MemoryEstimate, Settings
from launcher.models.types import ModelShape
from launcher.recipe.types import Data, Peft, Stage

STATES = ("weights", "reference", "reward model", "value model", "gradients", "optimizer")
ROLES = {
    "sft": ("model",),
    "reward": ("model",),
    "dpo": ("policy",),
    "kto": ("policy",),
    "ppo": ("policy", "reward_model"),
    "grpo": ("policy", "reward_model"),
    "rloo": ("policy", "reward_model"),
    "online_dpo": ("policy", "reward_model"),
    "evaluate": ("reward_model",),
}

LIMITS = {
    "sft": "max_length",
    "reward": "max_length",
    "dpo": "max_length",
    "kto": "max_length",
    "online_dpo": "max_new_tokens",
}
"""The key of what a sequence may have; of the others, `max_completion_length`."""


@some.composite
def model(draw: Any) -> ModelShape:
    head_dim = draw(some.sampled_from([64, 128]))
    kv_heads = draw(some.integers(1, 8))
    heads = kv_heads * draw(some.integers(1, 8))
    return ModelShape(
        "some",
        layers=draw(some.integers(1, 80)),
        hidden=128 * draw(some.integers(1, 64)),
        intermediate=128 * draw(some.integers(1, 200)),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=draw(some.integers(1000, 260_000)),
        max_positions=131072,
        tied_embeddings=draw(some.booleans()),
        family=draw(some.sampled_from(["llama", "qwen2", "gemma2", "phi3"])),
    )


@some.composite
def job(draw: Any) -> tuple[Stage, ModelShape, Settings]:
    method = draw(some.sampled_from(sorted(ROLES)))
    train: dict[str, Any] = {"optim": draw(some.sampled_from(["adamw_torch_fused", "adamw_torch"]))}
    length = draw(some.integers(16, 4096))
    train[LIMITS.get(method, "max_completion_length")] = length
    if draw(some.booleans()):
        train["model_init_kwargs"] = {"attn_implementation": "eager"}
    stage = Stage(
        "stage",
        method,
        dict.fromkeys(ROLES[method], "some"),
        candidates={"one": "some"} if method == "evaluate" else {},
        dtype=draw(some.sampled_from(["bfloat16", "float32"])),
        data=Data("data", max_prompt_tokens=draw(some.integers(8, 1024))),
        peft=draw(peft()) if method != "evaluate" else None,
        train=train if method != "evaluate" else {"max_completion_length": length},
    )
    zero = draw(some.sampled_from([0, 1, 2, 3])) if method != "evaluate" else 0
    found = Settings(
        processes=draw(some.sampled_from([1, 2, 8, 64])),
        zero_stage=zero,
        gradient_checkpointing=draw(some.booleans()),
        micro_batch=draw(some.integers(1, 16)),
        accumulation=draw(some.integers(1, 4)),
        device=draw(some.sampled_from(["cuda", "cpu"])),
    )
    return stage, draw(model()), found


def peft() -> some.SearchStrategy[Peft | None]:
    adapters = some.builds(
        Peft,
        r=some.integers(1, 128),
        targets=some.sampled_from([("q_proj", "v_proj"), "all-linear"]),
        quantization=some.sampled_from([None, "nf4", "nf4-double"]),
        dora=some.booleans(),
        dropout=some.sampled_from([0.0, 0.1]),
    )
    return some.one_of(some.none(), adapters)


def of(stage: Stage, shape: ModelShape, found: Settings) -> MemoryEstimate:
    shapes = dict.fromkeys((*ROLES[stage.method], "candidate"), shape)
    if stage.method != "evaluate":
        del shapes["candidate"]
    return estimate(stage, shapes, found)


def states(found: MemoryEstimate) -> dict[str, int]:
    """The most of each model-state item over the phases."""
    return {item: max(phase.items.get(item, 0) for phase in found.phases) for item in STATES}


@settings(deadline=None, max_examples=150)
@given(job())
def test_items_are_positive_and_sum_to_the_total(
    some_job: tuple[Stage, ModelShape, Settings],
) -> None:
    found = of(*some_job)
    for phase in found.phases:
        assert all(size > 0 for size in phase.items.values()), phase
        assert sum(phase.items.values()) == phase.total
        assert 0 < phase.allocated <= phase.reserved <= phase.total
    assert found.host_bytes > 0


@settings(deadline=None, max_examples=150)
@given(job(), some.sampled_from(["layers", "vocab"]), some.integers(1, 50))
def test_a_larger_model_never_takes_less(
    some_job: tuple[Stage, ModelShape, Settings], what: str, more: int
) -> None:
    stage, shape, found = some_job
    larger = replace(shape, **{what: getattr(shape, what) + more})
    assert of(stage, larger, found).peak.total >= of(stage, shape, found).peak.total


@settings(deadline=None, max_examples=150)
@given(job(), some.integers(1, 2000))
def test_a_longer_or_larger_batch_never_takes_less(
    some_job: tuple[Stage, ModelShape, Settings], more: int
) -> None:
    stage, shape, found = some_job
    now = of(stage, shape, found).peak.total
    key = LIMITS.get(stage.method, "max_completion_length")
    longer = replace(stage, train={**stage.train, key: stage.train[key] + more})
    assert of(longer, shape, found).peak.total >= now
    wider = replace(found, micro_batch=found.micro_batch + more)
    assert of(stage, shape, wider).peak.total >= now


@settings(deadline=None, max_examples=150)
@given(job())
def test_no_state_grows_with_the_zero_stage_or_with_more_gpus(
    some_job: tuple[Stage, ModelShape, Settings],
) -> None:
    stage, shape, found = some_job
    if stage.method == "evaluate" or found.processes == 1:
        # Alone there is nothing to divide: DeepSpeed's float32 copies come on top there.
        return
    now = states(of(stage, shape, found))
    more = states(of(stage, shape, replace(found, processes=2 * found.processes)))
    assert all(more[item] <= now[item] for item in now), (now, more)
    if found.zero_stage < 3:
        higher = states(of(stage, shape, replace(found, zero_stage=found.zero_stage + 1)))
        if found.zero_stage == 0:
            # DeepSpeed lays a gradient into a buffer of its own while the first is there.
            del now["gradients"]
        rises = {item: (now[item], higher[item]) for item in now if higher[item] > now[item]}
        assert not rises
