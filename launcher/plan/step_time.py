"""How long a step takes: a stage's work at an allocation's speed. Pure arithmetic, no fitting.

One optimizer step of one process is its micro-batches one after the other, each the larger of
arithmetic and of the time in which Python launches kernels; then the communication that arithmetic
does not hide, the optimizer, and offloading. Online methods add rollouts: answers are written one
token at a time, as fast as weights and cache are read from memory, then scored.

Constants are from public measurements, named beside each; `docs/planning.md` compares the whole
with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.memory.types import Settings
from launcher.plan.speed import Speed
from launcher.plan.work import Reader, Work

HALF_SPEED_TOKENS = 128
"""Tokens of a pass at which products reach half their rate (Qwen's LoRA table: a token of 512 takes
15 % longer than one of 2048)."""
HALF_SPEED_WIDTH = 256
"""The same for a model's hidden size (llm-foundry's table, from 768 to 4096)."""
LAUNCH = 0.0012
"""Seconds in which Python launches one block's forward pass; backwards takes half as long again
(Qwen's LoRA table at 256 tokens: 4.7 ms a block with checkpointing)."""
GATHER = 0.002
"""Seconds that ZeRO-3 adds to each block's pass, for hooks and the latency of a gather (Qwen's
table of full trainings)."""
WRITE_LAUNCH = 0.0008
"""Seconds of one block for one generated token (Qwen-7B writes 41 tokens a second on an A100)."""
COMPILED_LAUNCH = 0.00015
"""The same in vLLM, which replays CUDA graphs."""
UNPACK_BYTES = 20
"""Memory traffic of unpacking one quantized weight for one pass (Qwen's Q-LoRA beside LoRA)."""
ATTENTION_BACKWARD = 2.5
"""FlashAttention's backward pass over its forward pass: five products for two."""
HIDDEN = 0.6
"""Share of communication that can run beside arithmetic, and of arithmetic that can hide it."""
ADAM_BYTES = 30
"""Read and written for a trained parameter: master, moments, gradient, weight."""
CPU_ADAM = 3e9
"""Parameters a second that a node's processors update together."""


@dataclass(frozen=True)
class StepTime:
    """Of one optimizer step; of evaluation, of one batch of every process."""

    seconds: float
    """On average, with the rollouts' share."""
    slowest: float
    """A step with its rollout before it."""


def step_time(work: Work, settings: Settings, speed: Speed) -> StepTime:
    """The time of a step of `work` under `settings` at `speed`."""
    if not work.trains:
        seconds = _rollout(work, settings, speed, settings.micro_batch * settings.accumulation)
        return StepTime(seconds, seconds)
    step = _update(work, settings, speed)
    if not work.online:
        return StepTime(step, step)
    if work.sequences_per_row > 1:
        # Online DPO writes the pairs of each forward pass before it.
        pairs = settings.micro_batch * work.sequences_per_row
        rollout = settings.accumulation * _rollout(work, settings, speed, pairs)
        return StepTime(step + rollout, step + rollout)
    written = work.batch * work.mini_batches / settings.processes
    rollout = _rollout(work, settings, speed, written)
    return StepTime(step + rollout / work.steps_a_round, step + rollout)


def _update(work: Work, settings: Settings, speed: Speed) -> float:
    """Seconds of one optimizer step: forward, backward, exchange, update."""
    accumulation = settings.accumulation
    arithmetic = accumulation * _micro_batch(work, settings, speed)
    traffic = _traffic(work, settings, speed)
    exposed = traffic - min(HIDDEN * traffic, HIDDEN * arithmetic)
    own = work.trained / (settings.processes if settings.zero_stage else 1)
    if settings.offload == "none":
        update = own * ADAM_BYTES / speed.memory
    else:
        # Gradients go to the host with each micro-batch, weights come back once.
        update = own * 2 * (accumulation + 1) / speed.pcie
        update += own * settings.processes_per_node / CPU_ADAM
    if settings.offload == "all":
        weights = work.parameters / settings.processes
        update += accumulation * 2 * 2 * weights / speed.pcie
    return arithmetic + exposed + update


def _micro_batch(work: Work, settings: Settings, speed: Speed) -> float:
    """Seconds of one forward and backward pass, and of those that read along."""
    sequences = settings.micro_batch * work.sequences_per_row
    context = work.context(sequences)
    tokens = sequences * context
    scored = sequences * work.length.completion if work.online else tokens
    recompute = settings.gradient_checkpointing
    seconds, passes = 0.0, 2.5 + recompute
    for reader in (work.main, work.value):
        if reader is None:
            continue
        products, attention = reader.forward(tokens, context, scored)
        # Frozen weights get no gradient.
        flops = products * (2 if work.adapters else 3)
        flops += attention * (1 + ATTENTION_BACKWARD)
        if recompute:
            flops += tokens * reader.products + attention
        launches = reader.layers * (LAUNCH * passes + GATHER * passes * (settings.zero_stage == 3))
        seconds += max(flops / _rate(reader, tokens, speed), launches)
    seconds += work.packed * UNPACK_BYTES * (2 + recompute) / speed.memory
    if not work.online:
        seconds += sum(_read(each, sequences, context, settings, speed) for each in work.others)
    return seconds


def _read(
    reader: Reader, sequences: float, context: float, settings: Settings, speed: Speed
) -> float:
    """Seconds of one forward pass without gradients, each micro-batch gathering under ZeRO-3."""
    tokens = sequences * context
    flops = sum(reader.forward(tokens, context, tokens))
    seconds = max(flops / _rate(reader, tokens, speed), reader.layers * LAUNCH)
    if settings.zero_stage == 3:
        gathered = _collective(2.0 * reader.weights, settings, speed)
        seconds += gathered - min(HIDDEN * gathered, HIDDEN * seconds)
    return seconds


def _rollout(work: Work, settings: Settings, speed: Speed, sequences: float) -> float:
    """Seconds in which one process answers `sequences` prompts and has the answers scored."""
    main, completion = work.main, work.length.completion
    prompt = work.prompt(sequences)
    if settings.server_gpus:
        # All that is asked for is written at one place, each GPU having its part of every matrix.
        written, parts = sequences * settings.processes, settings.server_gpus
    else:
        written, parts = sequences, 1
    compiled = work.online and bool(work.stage.train.get("use_vllm"))
    weights = 2.0 * main.weights
    rate = _rate(main, written, speed)
    cache = 2.0 * main.cache_row * written * (prompt + completion / 2)
    products, attention = main.forward(written, prompt + completion / 2, written)
    token = max(
        (weights + cache) / speed.memory / parts,
        (products + 2 * attention) / rate / parts,
        main.layers * (COMPILED_LAUNCH if compiled else WRITE_LAUNCH),
    )
    seconds = 0.0
    if settings.zero_stage == 3 and settings.processes > 1:
        if settings.gather_for_generation and work.trains:
            seconds += _collective(weights, settings, speed)
        else:
            token += _collective(weights, settings, speed) + main.layers * GATHER
            if settings.offload == "all":
                token += weights / settings.processes / speed.pcie
    seconds += completion * token
    seconds += sum(main.forward(written * prompt, prompt, written)) / speed.rate / parts
    # Then whoever scores reads the answers, a micro-batch at a time; the policy does too.
    micro = min(sequences, settings.micro_batch)
    for reader in (main, *work.others):
        each = _read(reader, micro, work.context(micro), settings, speed)
        seconds += sequences / micro * each
    return seconds


def _rate(reader: Reader, tokens: float, speed: Speed) -> float:
    wide = reader.hidden / (reader.hidden + HALF_SPEED_WIDTH)
    return speed.rate * wide * tokens / (tokens + HALF_SPEED_TOKENS)


def _traffic(work: Work, settings: Settings, speed: Speed) -> float:
    """Seconds of communication of one optimizer step.

    Data parallelism sums gradients once (a sum is a scatter and a gather), ZeRO 1 too and gathers
    the weights; ZeRO 2 scatters gradients with each micro-batch; ZeRO 3 gathers the weights for
    each pass besides.
    """
    if settings.processes == 1:
        return 0.0
    accumulation, trained = settings.accumulation, work.trained
    if settings.zero_stage == 0:
        size = 2.0 * 4 * trained
    elif settings.zero_stage == 1:
        size = 2.0 * 3 * trained
    elif settings.zero_stage == 2:
        size = 2.0 * trained * (accumulation + 1)
    else:
        models = work.main.weights + (work.value.weights if work.value is not None else 0)
        size = 2.0 * accumulation * (2 * models + trained)
    return _collective(size, settings, speed)


def _collective(size: float, settings: Settings, speed: Speed) -> float:
    """Seconds in which every process gets `size` bytes that are spread over all of them.

    Over several nodes each byte enters a node once, over all its adapters.
    """
    n, per_node = settings.processes, settings.processes_per_node
    if n == 1:
        return 0.0
    nodes = max(1, n // per_node)
    inside = size * (n - 1) / n / speed.link if per_node > 1 else 0.0
    return max(inside, size * (nodes - 1) / nodes / speed.network)


def sequences(work: Work, settings: Settings) -> int:
    """Sequences of a step over all processes: trained on, or answered."""
    if work.trains:
        return work.batch * work.sequences_per_row
    return settings.processes * settings.micro_batch * settings.accumulation


def asked(work: Work) -> float:
    """FLOPs that the method asks for a sequence: no recomputation, no padding."""
    tokens = work.tokens
    answer = float(work.length.completion) if work.length.prompt else tokens
    products, attention = work.main.forward(tokens, tokens, answer)
    read = sum(sum(each.forward(tokens, tokens, answer)) for each in work.others)
    # A rollout is written, then read by the policy and the others.
    written = 2 * (products + attention) + read
    if not work.trains:
        return written
    total = products * (2 if work.adapters else 3) + attention * (1 + ATTENTION_BACKWARD)
    if work.value is not None:
        total += 3 * sum(work.value.forward(tokens, tokens, 0))
    return total + (written / work.passes if work.online else read)
