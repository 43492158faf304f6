"""Recipe × cluster × model shapes → the plan. Pure: the same values give the same plan."""

from __future__ import annotations

import difflib

import launcher
from launcher.cluster.availability import Availability
from launcher.cluster.types import Cluster, NodeGroup
from launcher.errors import UsageError
from launcher.memory.lengths import whole
from launcher.memory.models import residents
from launcher.memory.types import MemoryEstimate, Phase
from launcher.plan import allocations, limits, vllm
from launcher.plan.adapters import check_adapter, check_whole_models
from launcher.plan.advice import advice
from launcher.plan.candidates import global_batch
from launcher.plan.choices import Choice, Misfit
from launcher.plan.commands import plan_command
from launcher.plan.deepspeed import Bases, shipped_bases
from launcher.plan.evidence import Evidence
from launcher.plan.explain import does_not_fit, rejected
from launcher.plan.ladder import ladder
from launcher.plan.layouts import Layout, cpus, layouts
from launcher.plan.objective import Objective
from launcher.plan.roles import Shapes, caching, role_shapes
from launcher.plan.search import Search
from launcher.plan.types import SCHEMA_VERSION, Allocation, Plan, Rejected, StagePlan
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Recipe, Stage


def make_plan(
    recipe: Recipe,
    cluster: Cluster,
    shapes: Shapes,
    *,
    trl_version: str,
    launcher_version: str = launcher.__version__,
    bases: Bases | None = None,
    evidence: Evidence | None = None,
    objective: Objective = "cost",
    availability: Availability | None = None,
) -> Plan:
    """The best allocation that holds each stage, by `objective` (see `launcher.plan.objective`).

    `shapes` gives a model's shape by its reference; `bases` the ZeRO base configurations (the
    shipped ones by default), `evidence` what past runs measured, `availability` what is free now
    (for `start`, which ranks by cost without). Global batches and all that the recipe pins are kept
    exactly.

    Raises UsageError where the recipe asks for what the cluster has not or what cannot be
    combined, and DoesNotFit, naming the smallest thing that would do, where memory is too small.
    """
    look_up = caching(shapes)
    configs = bases if bases is not None else shipped_bases()
    past = evidence if evidence is not None else Evidence()
    stages, guessed = [], set[str]()
    for stage in recipe.stages:
        if stage.method not in METHODS:
            close = difflib.get_close_matches(stage.method, METHODS, n=1)
            raise UsageError(
                f"stages.{stage.name}.method: there is no method `{stage.method}`",
                hint=f"did you mean {close[0]}?" if close else ", ".join(METHODS),
            )
        if stage.use is not None:
            stages.append(_stand_in(stage))
            continue
        if stage.command is not None:
            stages.append(plan_command(stage, cluster))
            continue
        own_shapes = role_shapes(recipe, stage, look_up)
        guessed |= {shape.name for shape in own_shapes.values() if shape.of_main}
        search = Search(
            stage, own_shapes, cluster, configs, past, trl_version, objective, availability
        )
        stages.append(_plan_stage(search))
    return Plan(
        schema_version=SCHEMA_VERSION,
        launcher_version=launcher_version,
        trl_version=trl_version,
        name=recipe.name,
        identity=recipe.identity,
        cluster=cluster,
        stages=tuple(stages),
        evidence=past.digest,
        objective=objective,
        notes=(*_of_main(guessed), *_notes(recipe, objective, availability)),
    )


def _of_main(names: set[str]) -> tuple[str, ...]:
    """A note for each model whose own revision is not known here."""
    return tuple(
        f"{name}: the sizes are those of {name.partition('@')[0]}'s main revision."
        for name in sorted(names)
    )


def _notes(
    recipe: Recipe, objective: Objective, availability: Availability | None
) -> tuple[str, ...]:
    if objective != "start":
        return ()
    if availability is None:
        return ("What is free now is not known: planned by cost.",)
    waiting = [stage.name for stage in recipe.stages if stage.needs and stage.use is None]
    if waiting:
        return (f"Stages that wait for others are planned by cost: {', '.join(waiting)}.",)
    return ()


def _plan_stage(search: Search) -> StagePlan:
    stage = search.stage
    _check_pins(stage)
    models = residents(stage, search.shapes)
    check_whole_models(stage, models)
    check_adapter(stage, models[0].shape)
    _check_lengths(search)
    every = vllm.with_server(stage, search.shapes, search.cluster, layouts(search.cluster, stage))
    allowed, refusals = _allowed(search, every)
    places = list(_by_place(allowed).values())
    offload = False
    choices = [search.best(each) for each in places]
    if not any(choices):
        offload = True
        choices = [search.best(each, offload=True) for each in places]
    fitting = [each for each in choices if each is not None]
    if not fitting:
        raise does_not_fit(search, [search.closest(each) for each in allowed])
    chosen = min(fitting, key=lambda each: each.rank)
    rivals = [each for each in fitting if each is not chosen]
    misfits: list[Misfit] = []
    here = places[choices.index(chosen)]
    other = search.best([each for each in here if each != chosen.layout], offload=offload)
    rivals += [other] if other is not None else []
    largest = (max(p, key=_size) for p, c in zip(places, choices, strict=True) if c is None)
    for layout in (*_next_smaller(chosen, here, search), *largest):
        found = search.on(layout)
        if isinstance(found, Choice):
            rivals.append(found)
        else:
            misfits.append(found)
    settings = chosen.settings
    predicted = allocations.prediction(search, chosen)
    allocation = allocations.allocation(search, chosen, predicted)
    return StagePlan(
        stage=stage,
        allocation=allocation,
        server=vllm.serves(stage, search.shapes, chosen.layout, search.cluster.device),
        zero_stage=settings.zero_stage,
        offload=settings.offload,
        gradient_checkpointing=settings.gradient_checkpointing,
        micro_batch=settings.micro_batch,
        accumulation=settings.accumulation,
        estimate=chosen.estimate,
        margin=search.margin(settings),
        deepspeed=allocations.deepspeed(search, settings),
        rejected=(*rejected(chosen, rivals, misfits, search), *refusals),
        gather_for_generation=settings.gather_for_generation,
        calibration=search.calibration(settings),
        prediction=predicted,
        disk=limits.disk(chosen),
        save_steps=chosen.duration.saves.steps,
        advice=advice(chosen, allowed, search) if search.cluster.device == "cuda" else (),
        ladder=ladder(chosen, allocation, allowed, search),
    )


def _size(layout: Layout) -> int:
    return layout.processes


def _next_smaller(chosen: Choice, here: list[Layout], search: Search) -> list[Layout]:
    """The most GPUs of the same kind that are fewer than the chosen ones, where the settings that
    were searched do not fit them: why so many are taken."""
    fewer = [each for each in here if each.processes < chosen.layout.processes]
    if not fewer:
        return []
    layout = max(fewer, key=_size)
    return [] if search.best([layout], offload=chosen.offloads) is not None else [layout]


def _by_place(allowed: list[Layout]) -> dict[tuple[str, NodeGroup], list[Layout]]:
    """Grouped by partition and kind of node, in order."""
    grouped: dict[tuple[str, NodeGroup], list[Layout]] = {}
    for each in allowed:
        grouped.setdefault((each.partition.name, each.group), []).append(each)
    return grouped


def _check_pins(stage: Stage) -> None:
    """Pins that contradict each other."""
    pins, place = stage.resources, f"stages.{stage.name}.resources"
    if pins.zero_stage is not None and pins.zero_stage not in (0, 1, 2, 3):
        raise UsageError(f"{place}.zero_stage: ZeRO has stages 0 to 3, not {pins.zero_stage}")
    if pins.offload == "all" and pins.zero_stage not in (None, 3):
        raise UsageError(
            f"{place}.offload: parameters can be offloaded under ZeRO 3 only",
            hint="set `zero_stage: 3`, or `offload: optimizer`",
        )
    if pins.offload == "optimizer" and pins.zero_stage == 0:
        raise UsageError(
            f"{place}.offload: the optimizer can be offloaded under DeepSpeed only",
            hint="set `zero_stage: 2`, or leave `zero_stage` to the plan",
        )
    if stage.method == "evaluate":
        if pins.zero_stage in (1, 2):
            raise UsageError(
                f"{place}.zero_stage: evaluation trains nothing, so ZeRO {pins.zero_stage} divides"
                " nothing",
                hint="leave it out, or set 3",
            )
        if pins.offload not in (None, "none"):
            raise UsageError(
                f"{place}.offload: evaluation keeps its models on the GPUs",
                hint="leave it out; `zero_stage: 3` divides the weights over several GPUs",
            )


def _check_lengths(search: Search) -> None:
    """Sequences that the recipe states longer than the model's context."""
    stage = search.stage
    shape = residents(stage, search.shapes)[0].shape
    generates = METHODS[stage.method].generates
    key = "max_completion_length" if generates else "max_length"
    stated = whole(stage.train, key, 0)
    prompt = (stage.data.max_prompt_tokens if stage.data is not None else None) or 0
    total = stated + (prompt if generates else 0)
    if stated and total > shape.max_positions:
        with_prompt = f" after prompts of up to {prompt} tokens" if generates and prompt else ""
        raise UsageError(
            f"stages.{stage.name}.train.{key}: {stated}{with_prompt} is past the context of"
            f" {shape.name} ({shape.max_positions} tokens)",
            hint="lower it, or choose a model with a longer context",
        )


def _allowed(search: Search, every: list[Layout]) -> tuple[list[Layout], list[Rejected]]:
    """The layouts that may be searched, and the refusals of the others (memory apart).

    Raises UsageError where none is left, with the reason that the user can mend.
    """
    kept: list[Layout] = []
    lines: dict[str, Rejected] = {}
    first: UsageError | None = None
    for layout in every:
        reason = _refusal(search, layout)
        if reason is None and not search.batches(layout.processes):
            # That some counts do not divide the batch goes without saying where others do.
            first = first or _indivisible(search, layout)
        elif reason is not None:
            first = first or reason
            what = f"{layout.group.gpu or 'CPUs'} in {layout.partition.name}"
            lines.setdefault(reason.message, Rejected(what, reason.message.split(": ", 1)[1]))
        else:
            kept.append(layout)
    if not kept:
        assert first is not None
        raise first
    return kept, list(lines.values())


def _refusal(search: Search, layout: Layout) -> UsageError | None:
    stage, pins = search.stage, search.stage.resources
    place = f"stages.{stage.name}"
    if layout.on_gpus and layout.group.gpu is not None:
        name = layout.group.gpu
        gpu = search.cluster.gpus.get(name)
        if gpu is None or gpu.memory_gib is None:
            return UsageError(
                f"{place}: the memory of GPU type {name} is not known",
                hint=f"set `gpus.{name}.memory_gib` in the profile of cluster"
                f" {search.cluster.name}, or ask the nodes: `launcher cluster discover --probe`",
            )
        if stage.dtype == "bfloat16" and not gpu.bf16:
            return UsageError(
                f"{place}.dtype: GPU type {name} does not compute in bfloat16",
                hint="choose another GPU type, or set `dtype: float16` or `float32`",
            )
    longest = layout.partition.max_time_minutes
    if pins.time_minutes is not None and longest is not None and pins.time_minutes > longest:
        return UsageError(
            f"{place}.resources.time: {pins.time_minutes} minutes are more than partition"
            f" {layout.partition.name} allows ({longest})",
            hint="ask for less (a stage resumes from its checkpoint), or another partition",
        )
    if (
        cpus(layout, pins) * layout.tasks_per_node > layout.group.cpus
        and search.cluster.engine == "slurm"
    ):
        return UsageError(
            f"{place}.resources: {layout.tasks_per_node} tasks of {cpus(layout, pins)} CPUs are"
            f" more than a node of {layout.partition.name} has ({layout.group.cpus})",
            hint="lower `cpus_per_task` or the number of processes",
        )
    asked = pins.host_memory_gib
    if asked is not None and asked > layout.group.memory_gib:
        return UsageError(
            f"{place}.resources.host_memory: {asked:g} GiB are more than a node of"
            f" {layout.partition.name} has ({layout.group.memory_gib:g})"
        )
    return vllm.refusal(stage, search.shapes, search.cluster, layout)


def _indivisible(search: Search, layout: Layout) -> UsageError:
    stage, n = search.stage, layout.processes
    total = global_batch(stage) or 0
    micro = stage.resources.micro_batch or 1
    unit = n * micro
    below, above = total // unit * unit, -(-total // unit) * unit
    near = f"{below} or {above}" if below else str(above)
    each = f" × micro-batch {micro}" if micro > 1 else ""
    return UsageError(
        f"stages.{stage.name}.global_batch: {total} is not divisible by {n} processes{each}",
        hint=f"set it to {near}, or change `resources`",
    )


def _stand_in(stage: Stage) -> StagePlan:
    """A finished model in a stage's place: in the plan, with nothing allocated."""
    return StagePlan(
        stage=stage,
        allocation=Allocation(
            partition="",
            gpu=None,
            gpu_memory_gib=None,
            nodes=0,
            tasks_per_node=0,
            cpus_per_task=0,
            host_memory_gib=0.0,
            time_minutes=0,
        ),
        zero_stage=0,
        offload="none",
        gradient_checkpointing=False,
        micro_batch=0,
        accumulation=0,
        estimate=MemoryEstimate(phases=(Phase("none", {}),), host_bytes=0),
        margin=0.0,
        deepspeed=None,
    )
