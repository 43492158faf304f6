"""What one attempt at a planned stage says of its estimate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from launcher.memory.types import Phase, Settings
from launcher.plan.calibration import ITEM
from launcher.plan.evidence import Kind, Observation, kind_of, minor
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.methods import METHODS

LEAST_STEPS = 2
"""Optimizer steps after which a training has held all that it holds: the optimizer's states are
made in the first."""
OF_THE_MODEL = frozenset(
    {
        "weights", "gathered weights", "gradients", "optimizer", "optimizer step", "buckets",
        "reference", "reward model", "value model", "autocast copies", "vllm", "cublas workspace",
        "context", "saved model",
    }
)  # fmt: skip
"""Items that are the same for short and long rows. All others grow with the tokens."""
_METRIC = {"cuda": "device reserved", "cpu": "host"}


class Receipt(Protocol):
    """What is asked of `launcher.records.attempts.Attempt`."""

    @property
    def name(self) -> str: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def peak_bytes(self) -> Mapping[str, int]: ...
    @property
    def steps(self) -> int: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def out_of_memory(self) -> bool: ...
    @property
    def rung(self) -> int: ...


def observe(plan: Plan, planned: StagePlan, attempt: Receipt) -> Observation | None:
    """The observation that the attempt makes, or None where it says nothing of the estimate.

    `planned` is the stage's plan; an attempt on a rung of its ladder is held against the estimate
    of that rung. It says nothing where the plan has no formula (an older launcher made it) or no
    such rung, or where it ended before its peak, unless for want of memory.
    """
    if not 0 <= attempt.rung <= len(planned.ladder):
        return None
    planned = planned.at(attempt.rung)
    if not planned.runs or not planned.calibration.formula or attempt.ended is None:
        return None
    whole = attempt.outcome == "complete" or (
        METHODS[planned.stage.method].trains and attempt.steps >= LEAST_STEPS
    )
    measured = attempt.peak_bytes.get(_METRIC[plan.cluster.device], 0)
    if not measured or not (whole or attempt.out_of_memory):
        return None
    kind = kind_of(planned.stage, settings_of(plan, planned))
    estimated = planned.calibration.tokens
    share = min(1.0, attempt.tokens / estimated) if attempt.tokens and estimated else 1.0
    return Observation(
        kind=kind,
        formula=planned.calibration.formula,
        trl=minor(plan.trl_version),
        predicted=max(_for_tokens(phase, kind, share) for phase in planned.estimate.phases),
        measured=measured,
        when=attempt.ended,
        run=attempt.name,
        gpu=planned.allocation.gpu,
        processes=planned.allocation.processes,
        at_least=attempt.out_of_memory,
    )


def settings_of(plan: Plan, planned: StagePlan) -> Settings:
    """The settings that a stage was estimated under, bucket sizes apart."""
    return Settings(
        processes=planned.allocation.processes,
        processes_per_node=planned.allocation.tasks_per_node,
        zero_stage=planned.zero_stage,
        offload=planned.offload,
        gradient_checkpointing=planned.gradient_checkpointing,
        micro_batch=planned.micro_batch,
        accumulation=planned.accumulation,
        gather_for_generation=planned.gather_for_generation,
        device=plan.cluster.device,
    )


def _for_tokens(phase: Phase, kind: Kind, share: float) -> int:
    """What the formula says of a phase whose batches had this share of the tokens it allows for.

    The estimate is for the longest rows that the recipe allows. Rows of a data set may all be
    shorter, and their runs say nothing of an error; the next one's rows may be the longest.
    """
    total = 0
    for name, size in phase.items.items():
        if name == ITEM or (name == "context" and kind.device == "cuda"):
            continue
        total += size if name in OF_THE_MODEL else int(size * share)
    return total
