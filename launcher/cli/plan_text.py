"""A plan as people read it."""

from __future__ import annotations

from pathlib import Path

from launcher.cli import output
from launcher.cli.output import gib, table
from launcher.memory.types import GIB
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
    lines = [f"{output.printable(title)}\n\n{table(header, rows)}"]
    corrected = [f"{s.name} {learned(s)}" for s in plan.stages if s.calibration.runs]
    if corrected:
        lines.append("\nmemory corrected: " + "; ".join(corrected))
    return "\n".join(lines)


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
    hours, minutes = divmod(allocation.time_minutes, 60)
    return (
        stage.name,
        stage.method,
        gpus,
        str(allocation.nodes),
        allocation.partition,
        memory,
        sharding,
        batch,
        f"{hours}:{minutes:02d} h",
        after,
    )


def _explain(planned: StagePlan) -> str:
    peak = planned.estimate.peak
    lines = [f"{planned.name}: {peak.name} is the peak, {gib(peak.total)} a process"]
    models = {
        role: (f"stage {stage_of(ref)}" if stage_of(ref) else ref)
        for role, ref in planned.stage.models.items()
    }
    lines.append("  " + ", ".join(f"{role}: {model}" for role, model in models.items()))
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
    for lost in planned.rejected:
        lines.append(f"  not {lost.what}: {lost.why}")
    return "\n".join(lines)


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
