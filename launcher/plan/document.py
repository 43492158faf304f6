"""`plan.json`: written once, read by the submitter, the job on the node and the report.

A plan that somebody hands in is input like a recipe, so reading checks it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from launcher.errors import UsageError
from launcher.plan.types import SCHEMA_VERSION, Plan, StagePlan
from launcher.recipe import vllm
from launcher.recipe.environment import refusal
from launcher.recipe.methods import METHODS
from launcher.recipe.types import stage_of
from launcher.recipe.values import NAME, RUN_NAME

_WAY_OUT = "make it again with `launcher plan RECIPE -o plan.json`"
# Scheduler options and paths reach a batch script one a line.
_LINE = re.compile(r"[^\x00-\x1f\x7f]*")


def plan_to_json(plan: Plan) -> str:
    """The plan as indented JSON text, with its schema version."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1).decode() + "\n"


def plan_from_json(text: str) -> Plan:
    """The plan that `plan_to_json` wrote, checked.

    Raises UsageError, with the key path, for what is no plan of this schema version, for unknown
    keys, and where its parts do not agree: batch products, the DeepSpeed configuration, what the
    cluster offers, the graph of stages, names and environment variables.
    """
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"the plan is not JSON: {error}", hint=_WAY_OUT) from error
    if not isinstance(raw, dict) or "schema_version" not in raw:
        raise UsageError("the plan has no `schema_version`: it is no plan", hint=_WAY_OUT)
    if raw["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"the plan has schema version {raw['schema_version']!r}, this launcher reads"
            f" {SCHEMA_VERSION}",
            hint=_WAY_OUT,
        )
    try:
        plan = msgspec.convert(raw, Plan)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the plan does not have the right shape: {error}", hint=_WAY_OUT
        ) from error
    unknown = next(_unknown(raw, msgspec.to_builtins(plan), "$"), None)
    if unknown is not None:
        raise UsageError(f"the plan has an unknown key {unknown}", hint=_WAY_OUT)
    problem = next(_problems(plan), None)
    if problem is not None:
        raise UsageError(f"the plan contradicts itself: {problem}", hint=_WAY_OUT)
    return plan


def _unknown(given: Any, read: Any, path: str) -> Iterator[str]:
    """Key paths that were given and not read."""
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for key, value in given.items():
            if key not in read:
                yield f"{path}.{key}"
            else:
                yield from _unknown(value, read[key], f"{path}.{key}")
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for index, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from _unknown(one, other, f"{path}[{index}]")


def _problems(plan: Plan) -> Iterator[str]:
    if not re.fullmatch(RUN_NAME, plan.name):
        yield f"name: {plan.name!r} is no run name"
    yield from _cluster_lines(plan)
    seen: list[str] = []
    for each in plan.stages:
        for problem in _stage_problems(plan, each, seen):
            yield f"stages.{each.name}.{problem}"
        seen.append(each.name)


def _cluster_lines(plan: Plan) -> Iterator[str]:
    cluster = plan.cluster
    texts = [cluster.name, cluster.account, cluster.qos, cluster.constraint, cluster.reservation]
    texts += [cluster.python, cluster.scratch, cluster.ledger, cluster.secrets]
    texts += [*cluster.gpus, *cluster.setup, *cluster.env, *cluster.env.values()]
    for partition in cluster.partitions:
        texts += [partition.name, partition.account, partition.qos]
    for text in texts:
        if text is not None and not _LINE.fullmatch(text):
            yield f"cluster: {text!r} has a control character"


def _stage_problems(plan: Plan, each: StagePlan, seen: list[str]) -> Iterator[str]:
    stage = each.stage
    if not re.fullmatch(NAME, stage.name) or stage.name in seen:
        yield f"name: {stage.name!r} is no stage name, or stands twice"
    if stage.method not in METHODS:
        yield f"method: there is no method {stage.method!r}"
        return
    for name in stage.needs:
        if name not in seen:
            yield f"needs: {name!r} does not come before it"
    for reference in (*stage.models.values(), *stage.candidates.values()):
        upstream = stage_of(reference)
        if upstream is not None and upstream not in seen:
            yield f"models: {reference!r} does not come before it"
    for variable, text in stage.env.items():
        if why := refusal(variable):
            yield f"env.{variable}: {why}"
        if not _LINE.fullmatch(text):
            yield f"env.{variable}: has a control character"
    if each.runs:
        yield from _allocation_problems(plan, each)
        yield from _batch_problems(each)
        yield from _ladder_problems(plan, each)


def _allocation_problems(plan: Plan, each: StagePlan) -> Iterator[str]:
    allocation = each.allocation
    try:
        partition = plan.cluster.partition(allocation.partition)
    except KeyError:
        yield f"allocation.partition: the cluster has no partition {allocation.partition!r}"
        return
    if min(allocation.nodes, allocation.tasks_per_node, allocation.cpus_per_task) < 1:
        yield "allocation: nodes, tasks and CPUs must be at least 1"
    if not 0 < allocation.time_minutes <= (partition.max_time_minutes or allocation.time_minutes):
        yield f"allocation.time_minutes: {allocation.time_minutes} is not within the partition's"
    if not 0 < allocation.signal_lead_s < allocation.time_minutes * 60:
        yield f"allocation.signal_lead_s: {allocation.signal_lead_s} is not within the time limit"
    groups = [group for group in partition.groups if group.gpu == allocation.gpu]
    if allocation.gpu is None:
        groups = [group for group in partition.groups if group.gpus == 0]
        groups = groups if plan.cluster.device == "cpu" else []
    nodes, tasks = allocation.all_nodes, allocation.all_tasks_per_node
    if not any(
        nodes <= group.nodes
        and (group.gpus == 0 or tasks <= group.gpus)
        and allocation.host_memory_gib <= group.memory_gib
        for group in groups
    ):
        what = f"{nodes} × {tasks} {allocation.gpu or 'processes'}"
        yield f"allocation: partition {partition.name} does not offer {what}"
    if (allocation.server_gpus > 0) != (vllm.mode(each.stage) == "server"):
        yield "allocation.server_gpus: it goes with `train.vllm_mode: server`, and only with it"
    if allocation.server_gpus < 0 or (
        allocation.server_apart and allocation.server_gpus > allocation.tasks_per_node
    ):
        yield f"allocation.server_gpus: {allocation.server_gpus} are not on the server's node"
    if not allocation.server_apart and allocation.server_gpus and allocation.nodes > 1:
        yield "allocation.server_apart: trainers on several nodes have the server apart"


def _batch_problems(each: StagePlan) -> Iterator[str]:
    stage, asked = each.stage, each.stage.global_batch
    if each.micro_batch < 1 or each.accumulation < 1:
        yield "micro_batch and accumulation must be at least 1"
    if asked is not None and each.sequences_per_step != asked:
        yield (
            f"micro_batch × accumulation × processes is {each.sequences_per_step},"
            f" not global_batch {asked}"
        )
    if each.zero_stage not in (0, 1, 2, 3):
        yield f"zero_stage: ZeRO has stages 0 to 3, not {each.zero_stage}"
    if each.save_steps is not None and each.save_steps < 1:
        yield "save_steps: must be at least 1"
    if not each.estimate.phases:
        yield "estimate: has no phases"
    if (each.deepspeed is None) != (each.zero_stage == 0):
        yield "deepspeed: it goes with zero_stage 1 to 3, and only with them"
    if each.deepspeed is None:
        if each.offload != "none":
            yield "offload: needs DeepSpeed"
        return
    zero = each.deepspeed.get("zero_optimization")
    expected = {
        "train_micro_batch_size_per_gpu": each.micro_batch,
        "gradient_accumulation_steps": each.accumulation,
        "train_batch_size": each.sequences_per_step,
    }
    for key, value in expected.items():
        if each.deepspeed.get(key) != value:
            yield f"deepspeed.{key}: is {each.deepspeed.get(key)!r}, the plan says {value}"
    if not isinstance(zero, Mapping) or zero.get("stage") != each.zero_stage:
        yield f"deepspeed.zero_optimization.stage: the plan says {each.zero_stage}"
    if (each.deepspeed.get("bf16") or {}).get("enabled") != (stage.dtype == "bfloat16"):
        yield f"deepspeed.bf16: the stage's dtype is {stage.dtype}"


def _ladder_problems(plan: Plan, each: StagePlan) -> Iterator[str]:
    """Every rung is held to what the plan itself is held to, and to the plan's batch."""
    for index, rung in enumerate(each.ladder):
        place, before, after = f"ladder[{index}]", each.at(index), each.at(index + 1)
        for problem in (*_allocation_problems(plan, after), *_batch_problems(after)):
            yield f"{place}.{problem}"
        if not _LINE.fullmatch(rung.what):
            yield f"{place}.what: {rung.what!r} has a control character"
        # An evaluation's batch changes nothing but its speed.
        if (
            METHODS[each.stage.method].trains
            and after.sequences_per_step != each.sequences_per_step
        ):
            yield (
                f"{place}: micro_batch × accumulation × processes is {after.sequences_per_step},"
                f" the plan's is {each.sequences_per_step}"
            )
        if rung.same_allocation != (rung.allocation == each.allocation):
            yield f"{place}.same_allocation: is {str(rung.same_allocation).lower()}"
        if rung.keeps_checkpoints != (_divided(before) == _divided(after)):
            yield f"{place}.keeps_checkpoints: is {str(rung.keeps_checkpoints).lower()}"


def _divided(each: StagePlan) -> tuple[object, ...]:
    """What the states in a checkpoint are divided by."""
    return each.allocation.processes, each.zero_stage, each.offload
