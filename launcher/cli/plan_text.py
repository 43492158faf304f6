"""A plan as people read it."""

from __future__ import annotations

from pathlib import Path

from launcher.cli import output
from launcher.cli.output import gib, table
from launcher.memory.types import GIB, Phase
from launcher.plan.calibration import ITEM
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import stage_of
from launcher.records.paths import RunPaths

BAR = 40


def show(plan: Plan, runs: Path, *, show_sbatch: bool, explain: bool, as_json: bool) -> None:
    """Print the plan in the form that was asked for."""
    if as_json:
        scripts = dict(_scripts(plan, runs)) if show_sbatch else {}
        output.data("plan", {"plan": plan, "sbatch": scripts})
        return
    output.text(render(plan))
    if explain:
        for stage in plan.stages:
            output.text("\n" + _explain(stage))
    if show_sbatch:
        for name, text in _scripts(plan, runs):
            output.text(f"\n# ---- {name}\n{text.rstrip()}")


def render(plan: Plan) -> str:
    """Stages in run order with their allocation, memory, batch and dependency."""
    header = (
        "stage", "method", "GPUs", "nodes", "partition", "memory", "ZeRO",
        "micro × accum × GPUs = batch", "time limit", "after",
    )  # fmt: skip
    rows = [_row(stage) for stage in plan.stages]
    title = f"{plan.name} on {plan.cluster.name} (TRL {plan.trl_version})"
    parts = [output.printable(title), table(header, rows)]
    running = [stage for stage in plan.stages if stage.prediction is not None]
    if running:
        predicted = (
            "stage", "a step", "steps", "tokens/s", "MFU", "takes", "GPU-hours", "checkpoint",
            "disk",
        )  # fmt: skip
        parts.append(table(predicted, [_predicted(stage) for stage in running]))
    corrected = [f"{s.name} {learned(s)}" for s in plan.stages if s.calibration.runs]
    if corrected:
        parts.append("memory corrected: " + "; ".join(corrected))
    parts += [block for block in (_remarks(plan), _advice(plan)) if block]
    return "\n\n".join(parts)


def learned(planned: StagePlan) -> str:
    """`from 14 runs: −3.1 %`, or an empty text where no run of the kind was measured."""
    found = planned.calibration
    if not found.runs:
        return ""
    runs = "1 run" if found.runs == 1 else f"{found.runs} runs"
    return f"from {runs}: {100 * (found.factor - 1):+.1f} %".replace("-", "−")


def _row(planned: StagePlan) -> tuple[str, ...]:
    stage, allocation = planned.stage, planned.allocation
    after = ", ".join(stage.needs) or "–"
    if stage.use is not None:
        return (stage.name, stage.method, "–", "–", "given", stage.use, "–", "–", "–", after)
    gpus = f"{allocation.processes} × {allocation.gpu}" if allocation.gpu else "CPU"
    if stage.command is not None:
        nodes, limit = str(allocation.nodes), _hours(allocation.time_minutes * 60)
        partition = allocation.partition
        return (stage.name, stage.method, gpus, nodes, partition, "–", "–", "–", limit, after)
    if allocation.gpu and allocation.server_gpus:
        gpus += f" + {allocation.all_tasks - allocation.processes} for vLLM"
    memory = gib(planned.estimate.peak.total)
    if allocation.gpu_memory_gib is not None:
        memory = f"{planned.estimate.peak.total / GIB:.1f} of {allocation.gpu_memory_gib:.1f} GiB"
    sharding = str(planned.zero_stage)
    if planned.offload != "none":
        sharding += f", offload {planned.offload}"
    if planned.gradient_checkpointing:
        sharding += ", checkpointing"
    batch = (
        f"{planned.micro_batch} × {planned.accumulation} × {allocation.processes}"
        f" = {planned.sequences_per_step}"
    )
    return (
        stage.name,
        stage.method,
        gpus,
        str(allocation.all_nodes),
        allocation.partition,
        memory,
        sharding,
        batch,
        _hours(allocation.time_minutes * 60),
        after,
    )


def _predicted(planned: StagePlan) -> tuple[str, ...]:
    found, disk = planned.prediction, planned.disk
    assert found is not None and disk is not None
    about = "≈ " if found.doubt else ""
    checkpoint = "–"
    if planned.save_steps is not None:
        checkpoint = f"every {planned.save_steps} steps, {_seconds(disk.save_seconds)}"
    elif disk.checkpoint_bytes:
        checkpoint = _seconds(disk.save_seconds)
    return (
        planned.name,
        _seconds(found.step_seconds),
        str(found.steps) if found.steps is not None else "?",
        f"{found.tokens_per_second:,.0f}",
        f"{found.mfu:.0%}" if found.mfu is not None else "–",
        f"{about}{_hours(found.seconds)}" if found.seconds is not None else "?",
        f"{found.gpu_hours:.1f}" if found.gpu_hours is not None else "?",
        checkpoint,
        gib(disk.total_bytes) if disk.total_bytes else "–",
    )


def _served(planned: StagePlan, least: Phase) -> str:
    """Where the stage's vLLM server is, and the least that it needs there."""
    allocation = planned.allocation
    where = "a node of its own" if allocation.server_apart else "the trainers' node"
    on = f"{allocation.server_gpus} × {allocation.gpu}" if allocation.gpu else "a process"
    memory = f"{gib(least.total)} a GPU" if allocation.gpu else gib(least.total)
    return f"{planned.name}: a vLLM server on {where} ({on}) needs {memory} at least."


def _remarks(plan: Plan) -> str:
    """What the figures leave open, and their sum."""
    lines = list(plan.notes)
    hours = disk = 0.0
    whole = True
    for planned in plan.stages:
        found, limit = planned.prediction, planned.allocation.time_minutes
        if found is None or not planned.runs:
            continue
        disk += planned.disk.total_bytes if planned.disk is not None else 0
        if planned.server is not None:
            lines.append(_served(planned, planned.server))
        hours += found.gpu_hours or 0.0
        whole = whole and found.gpu_hours is not None
        if found.doubt and planned.stage.resources.time_minutes is None:
            lines.append(
                f"{planned.name}: {found.doubt}, so it gets the partition's time limit; past it,"
                " it goes on from its checkpoint."
            )
        elif found.seconds is not None and found.seconds > limit * 60:
            times = -(-found.seconds // (limit * 60))
            lines.append(
                f"{planned.name}: needs its time limit {times:.0f} times; each time it goes on from"
                " its checkpoint."
            )
    if hours and all(stage.allocation.gpu for stage in plan.stages if stage.runs):
        at_least = "" if whole else "at least "
        lines.append(f"In all {at_least}{hours:.1f} GPU-hours, {gib(disk)} on disk.")
    return "\n".join(lines)


def _advice(plan: Plan) -> str:
    lines = [f"  {stage.name}: {line}" for stage in plan.stages for line in stage.advice]
    return "\n".join(["What a small change would buy:", *lines]) if lines else ""


def _seconds(seconds: float) -> str:
    """`0.23 s`, `5.6 s`, `107 s`."""
    figures = 2 if seconds < 1 else 1 if seconds < 10 else 0
    return f"{seconds:.{figures}f} s"


def _hours(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}:{minutes:02d} h"


def _explain(planned: StagePlan) -> str:
    if planned.stage.command is not None:
        return f"{planned.name}: {output.printable(' '.join(planned.stage.command.argv))}"
    peak = planned.estimate.peak
    lines = [f"{planned.name}: {peak.name} is the peak, {gib(peak.total)} a process"]
    models = {
        role: (f"stage {stage_of(ref)}" if stage_of(ref) else ref)
        for role, ref in planned.stage.models.items()
    }
    lines.append("  " + ", ".join(f"{role}: {model}" for role, model in models.items()))
    if planned.stage.rewards:
        judges = (f"{reward.weight:g} × {reward.label}" for reward in planned.stage.rewards)
        lines.append("  rewards: " + ", ".join(judges))
    largest = max(peak.items.values(), default=0)
    for item, size in sorted(peak.items.items(), key=lambda pair: -pair[1]):
        bar = "█" * max(1, round(BAR * size / largest)) if size > 0 else ""
        if item == ITEM:
            bar = learned(planned)
        lines.append(f"  {item:<22} {size / GIB:8.2f} GiB  {bar}")
    if planned.allocation.gpu_memory_gib is not None:
        margin = f"{100 * planned.margin:.1f} %"
        lines.append(f"  kept free: {margin} of the GPU, {planned.calibration.margin}")
    lines.append(f"  {'host memory':<22} {planned.estimate.host_bytes / GIB:8.2f} GiB")
    for item, size in planned.estimate.node_items.items():
        lines.append(f"  {item:<22} {size / GIB:8.2f} GiB of host memory a node")
    found = planned.prediction
    if found is not None:
        lines.append(
            f"  slowest step {_seconds(found.slowest_step_seconds)}, told to stop"
            f" {planned.allocation.signal_lead_s} s before the time limit"
        )
    if planned.runs:
        lines.append(f"  out of memory: {climb(planned)}")
    for lost in planned.rejected:
        lines.append(f"  not {lost.what}: {lost.why}")
    return "\n".join(lines)


def climb(planned: StagePlan) -> str:
    """The ladder in a line: `micro-batch 4 → 2 → 1, ZeRO 3; in a new job: 8 × a100_40gb`.

    `in a new job` stands before the first rung that the plan's own allocation does not hold.
    """
    if not planned.ladder:
        return "nothing is left to try"
    batches, words, moved = [planned.micro_batch], [], False
    for rung in planned.ladder:
        if rung.what == f"micro-batch {rung.micro_batch}" and rung.same_allocation:
            batches.append(rung.micro_batch)
            continue
        words.append((", " if rung.same_allocation or moved else "; in a new job: ") + rung.what)
        moved = moved or not rung.same_allocation
    if len(batches) > 1:
        words.insert(0, ", micro-batch " + " → ".join(str(size) for size in batches))
    return "".join(words)[2:]


def _scripts(plan: Plan, runs: Path) -> list[tuple[str, str]]:
    """Stage → its batch script, with the run's folder and tokens as placeholders."""
    from launcher.run.request import job_request
    from launcher.scheduler import sbatch

    run = RunPaths(runs.resolve() / f"{plan.name}-{plan.identity[:8]}")
    return [
        (
            stage.name,
            sbatch.text(
                job_request(
                    run, plan, stage.name, "TOKEN", tuple(f"JOB_{n}" for n in stage.stage.needs)
                )
            ),
        )
        for stage in plan.stages
        if stage.stage.use is None
    ]
