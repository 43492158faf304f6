"""The itemised memory of one stage under given settings: arithmetic only, no torch, instant."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.memory import activations as act
from launcher.memory.generation import reading, writing
from launcher.memory.lengths import Lengths, lengths, whole
from launcher.memory.models import Resident, residents
from launcher.memory.states import States, exchange, states
from launcher.memory.types import GIB, MemoryEstimate, Phase, Settings
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

CONTEXT = {"cuda": GIB, "cpu": GIB // 2}
"""What a process takes before any tensor: on CUDA the context and NCCL's buffers, on CPU the
interpreter with torch (0.5 GiB measured)."""
HOST_BASE = {"cuda": 8 * GIB, "cpu": 3 * GIB // 2}
"""Host memory of a process beside its tensors: libraries, pinned buffers, data workers."""
KERNEL_BUILD = 3 * GIB
"""DeepSpeed compiles a kernel on the node that first uses it, two files at once: 1.4 GiB each,
measured with g++ 12 and torch 2.13. One process of a node builds while the others wait."""
_NAMES = {"reward_model": "reward model", "value_model": "value model"}


def estimate(stage: Stage, shapes: Mapping[str, ModelShape], settings: Settings) -> MemoryEstimate:
    """The bytes on one GPU (on a CPU cluster: of one process) at the peak of each phase.

    `shapes` is keyed by role; for `evaluate` by `candidate` (the largest), `reward_model` and
    `reference`. Phases: `load`; `rollout` and `score` of online methods; `generate`, `score` and
    `reward` of evaluation; for training `loss` (the end of the forward pass), `backward`, and
    `step` where DeepSpeed's optimizer adds something of its own.
    """
    models = residents(stage, shapes)
    held = {model.role: states(model, stage.dtype, settings) for model in models}
    if stage.method == "evaluate":
        phases = _evaluation(stage, models, held, settings)
    else:
        phases = _training(stage, models, held, settings)
    phases = tuple(
        Phase(phase.name, {name: size for name, size in phase.items.items() if size})
        for phase in phases
    )
    offloaded = sum(each.host for each in held.values())
    host = offloaded + HOST_BASE[settings.device]
    if settings.device == "cpu":
        host += max(phase.total for phase in phases)
    else:
        host += _loading(models, stage, settings)
    return MemoryEstimate(phases, host, _node_items(settings))


def _node_items(settings: Settings) -> dict[str, int]:
    """On CPU every use of DeepSpeed needs a kernel, on CUDA the optimizer on the host does."""
    builds = settings.zero_stage > 0 and (settings.device == "cpu" or settings.offload != "none")
    return {"DeepSpeed's kernel build": KERNEL_BUILD} if builds else {}


def _training(
    stage: Stage,
    models: tuple[Resident, ...],
    held: Mapping[str, States],
    settings: Settings,
) -> tuple[Phase, ...]:
    main = models[0]
    shape, dtype, peft = main.shape, stage.dtype, stage.peft
    method = METHODS[stage.method]
    length = lengths(stage, shape)
    sequences = settings.micro_batch * method.sequences_per_row
    tokens = sequences * length.total
    autocast = settings.zero_stage == 0 and dtype != "float32" and peft is None

    base = _weights(models, held) | {"context": CONTEXT[settings.device]}
    steady = base | {
        "optimizer": sum(each.optimizer for each in held.values()),
        "autocast copies": sum(each.casts for each in held.values()),
    }
    shared = exchange(models, dtype, settings)
    gradients = sum(each.gradients for each in held.values())
    saved = act.saved(
        shape,
        tokens,
        dtype,
        peft,
        autocast=autocast,
        checkpointing=settings.gradient_checkpointing,
    )
    work = act.backward_work(shape, tokens, dtype)
    if settings.gradient_checkpointing:
        work += act.layer(shape, tokens, dtype, peft, autocast)
    # A separate value model is walked in the same pass as the policy.
    for other in models[1:]:
        if other.trained:
            saved += act.saved(
                other.shape,
                tokens,
                dtype,
                None,
                autocast=autocast,
                checkpointing=settings.gradient_checkpointing,
            )
    phases = [
        Phase("load", base),
        Phase(
            "loss",
            steady
            | shared
            | {
                "gradients": gradients if settings.accumulation > 1 else 0,
                "activations": saved,
                "logits": _loss_logits(stage, shape, sequences, length, settings),
            },
        ),
        Phase("backward", steady | shared | {"gradients": gradients, "activations": saved + work}),
    ]
    step = sum(each.step for each in held.values())
    if step:
        phases.append(Phase("step", steady | {"gradients": gradients, "optimizer step": step}))
    if method.online:
        # The completions of one step (of several mini-batches) are generated at once.
        rollouts = settings.micro_batch * settings.accumulation
        rollouts *= whole(stage.train, "num_mini_batches", 1)
        base = steady | {"autocast copies": 0}
        phases[1:1] = [
            writing("rollout", stage, main, base, rollouts, length, settings),
            reading("score", stage, models, base, length, settings),
        ]
    return tuple(phases)


def _evaluation(
    stage: Stage,
    models: tuple[Resident, ...],
    held: Mapping[str, States],
    settings: Settings,
) -> tuple[Phase, ...]:
    """One model is in memory at a time: a candidate writes (`generate`), candidates and reference
    read what was written (`score`), then the reward model does (`reward`)."""
    candidate, *others, reward = models
    length = lengths(stage, candidate.shape)
    largest = max((candidate, *others), key=lambda model: model.parameters)

    def alone(model: Resident) -> dict[str, int]:
        return {"weights": held[model.role].weights, "context": CONTEXT[settings.device]}

    return (
        Phase("load", alone(largest)),
        writing(
            "generate",
            stage,
            candidate,
            alone(candidate),
            settings.micro_batch * settings.accumulation,
            length,
            settings,
        ),
        reading("score", stage, (largest,), alone(largest), length, settings),
        reading("reward", stage, (reward,), alone(reward), length, settings),
    )


def _loss_logits(
    stage: Stage, shape: ModelShape, sequences: int, length: Lengths, settings: Settings
) -> int:
    if stage.method == "reward":
        return 0
    tokens = sequences * (length.completion if METHODS[stage.method].online else length.total)
    if settings.device == "cuda":
        return act.fused_logits(shape, tokens, stage.peft is None)
    return act.stock_logits(shape, tokens)


def _weights(models: tuple[Resident, ...], held: Mapping[str, States]) -> dict[str, int]:
    items = {"weights": held[models[0].role].weights}
    for model in models[1:]:
        items[_NAMES.get(model.role, model.role)] = held[model.role].weights
    return items


def _loading(models: tuple[Resident, ...], stage: Stage, settings: Settings) -> int:
    """Host memory while weights are read or written, for one process.

    The largest model passes through the host whole; under ZeRO-3 one rank of a node gathers it
    when it is saved, which is shared out over that node's processes.
    """
    largest = max(model.parameters for model in models) * (4 if stage.dtype == "float32" else 2)
    if settings.zero_stage == 3:
        return largest // settings.processes_per_node
    return largest
