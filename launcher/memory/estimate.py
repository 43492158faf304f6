"""The itemised memory of one stage under given settings: arithmetic only, no torch, instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.memory.block import Kind
from launcher.memory.generation import (
    Vllm,
    reading,
    rollout_sequences,
    vllm_share,
    writing,
)
from launcher.memory.head import Output
from launcher.memory.host import host_memory, node_items
from launcher.memory.lengths import Lengths, lengths, whole
from launcher.memory.models import REWARDS, Resident, residents, scores
from launcher.memory.passes import Batch, kept, merge, read, through, total, training
from launcher.memory.pool import idle
from launcher.memory.process import around
from launcher.memory.saving import Saved, saving
from launcher.memory.stack import Stack, beside, gathered, stack_of, width
from launcher.memory.states import States, exchange, states
from launcher.memory.types import MemoryEstimate, Phase, Settings
from launcher.memory.walk import Items
from launcher.models.types import ModelShape
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage

_NAMES = {"reward_model": "reward model", "value_model": "value model"}


def estimate(
    stage: Stage,
    shapes: Mapping[str, ModelShape],
    settings: Settings,
    stack: Stack | None = None,
) -> MemoryEstimate:
    """The bytes on one GPU (on a CPU cluster: of one process) at the peak of each phase.

    `shapes` is keyed by role; for `evaluate` by `candidate` (the largest), `reward_model` and
    `reference`. `stack` is what the software does where it is not the launcher's own worker.
    Phases: `load`; `rollout` and `score` of online methods; `generate`, `score` and `reward` of
    evaluation; for training `loss` (the end of the forward pass), `backward`, `step`, and `save`.
    """
    stack = stack or stack_of(stage, settings)
    job = _Job(stage, residents(stage, shapes), settings, stack)
    trains = METHODS[stage.method].trains
    phases = job.training() if trains else job.evaluation()
    made = tuple(_phase(name, items, job) for name, items in phases)
    offloaded = sum(each.host for each in job.held.values())
    host = host_memory(
        job.models,
        stage,
        settings,
        stack,
        offloaded=offloaded,
        peak=max(each.total for each in made),
        saved=job.saved.host if trains else 0,
    )
    return MemoryEstimate(made, host, node_items(settings))


def _phase(name: str, items: Items, job: _Job) -> Phase:
    held = {**items, "fragmentation": job.idle(name, items), **around(job.settings)}
    rounded = {item: round(size) for item, size in held.items()}
    return Phase(name, {item: size for item, size in rounded.items() if size})


@dataclass
class _Job:
    stage: Stage
    models: tuple[Resident, ...]
    settings: Settings
    stack: Stack

    def __post_init__(self) -> None:
        self.held: dict[str, States] = {
            model.role: states(model, self._stack(model), self.settings) for model in self.models
        }
        self.length: Lengths = lengths(self.stage, self.models[0].shape)

    @property
    def saved(self) -> Saved:
        """What the writing of the model that trained takes."""
        return saving(self.models[0], self.stage, self.settings, self.stack)

    @property
    def sharded(self) -> bool:
        """Whether FSDP gives each process a part of everything."""
        return self.stack.sharding == "fsdp" and self.settings.zero_stage > 0

    def training(self) -> list[tuple[str, Items]]:
        settings, held = self.settings, self.held.values()
        online = METHODS[self.stage.method].online
        vllm = vllm_share(self.stage, settings)
        base = self._weights() | vllm.all_phases
        steady = base | {"optimizer": sum(each.optimizer for each in held)}
        gradients = sum(each.gradients for each in held)
        exchanged = self._exchange(self.models)
        exchanged["buckets"] = exchanged.get("buckets", 0) + sum(each.buckets for each in held)
        # FSDP has given a block's weights back by the time that the loss is made.
        at_loss = self._exchange(self.models, blocks=0) if self.sharded else exchanged
        # Without DeepSpeed gradients appear as they are made, whole or as FSDP's shards, if there
        # are no earlier ones. DeepSpeed has room for them.
        fresh = settings.accumulation == 1
        appear = fresh and (settings.zero_stage == 0 or self.sharded)
        idle = {"gradients": float(sum(each.idle for each in held))}
        room = {"gradients": float(gradients)}
        loss, backward = self._passes(appear, gradients if self.sharded and appear else None)
        step = {"optimizer step": float(sum(each.step for each in held))}
        phases = [
            ("load", base),
            ("loss", merge((steady, at_loss, idle if fresh else room, loss))),
            ("backward", merge((steady, exchanged, {} if appear else room, backward))),
            ("step", merge((steady, room, step))),
            ("save", merge((steady, idle, self._written()))),
        ]
        if online:
            phases[1:1] = self._rollout(merge((steady, idle)), vllm)
        return phases

    def _passes(self, keeps_gradients: bool, shards: float | None) -> tuple[Items, Items]:
        """What the step of one micro-batch adds, at the end of its loss and backwards."""
        stage, settings, main = self.stage, self.settings, self.models[0]
        method = METHODS[stage.method]
        sequences = settings.micro_batch * method.sequences_per_row
        batch = self._batch(sequences)
        kind = self.kind(main)
        loss, backward = training(
            kind,
            self._output(main),
            batch,
            checkpointing=settings.gradient_checkpointing,
            keeps_gradients=keeps_gradients,
            shards=shards,
        )
        for other in self.models[1:]:
            if other.trained:
                # A value model of its own is walked in the same pass as the policy.
                own = training(
                    self.kind(other),
                    "score",
                    batch,
                    checkpointing=settings.gradient_checkpointing,
                    keeps_gradients=keeps_gradients,
                )
                loss, backward = merge((loss, own[0])), merge((backward, own[0]))
        if stage.method == "online_dpo":
            # Reference and reward models read the pairs while what the policy's pass keeps lives.
            readers = (
                read(self.kind(each, trains=False), self._output(each), batch)
                for each in (self.models[1:] or self.models)
            )
            size = width("float32" if self.stack.autocast else self.stack.compute)
            scored = batch.sequences * batch.scored * main.shape.vocab
            held = kept(kind, batch, checkpointing=settings.gradient_checkpointing)
            chances = {"logits": float(size * scored)}
            loss = max(loss, merge((held, chances, max(readers, key=total))), key=total)
        if method.reference == "not precomputed" and method.needs_reference(stage.train):
            # The reference reads the batch while the policy's activations live.
            reference = next((m for m in self.models if m.role == "reference"), main)
            frozen = read(self.kind(reference, trains=False), "log-probabilities", batch)
            held = kept(kind, batch, checkpointing=settings.gradient_checkpointing)
            loss = max(loss, merge((held, frozen)), key=total)
        return loss, backward

    def _batch(self, sequences: int) -> Batch:
        """PPO and online DPO score completions only; TRL's other trainers score prompts, too."""
        completion, total = self.length.completion, self.length.total
        alone = self.stage.method in ("ppo", "online_dpo")
        return Batch(sequences, total, completion if alone else total)

    def _rollout(self, steady: Items, vllm: Vllm) -> list[tuple[str, Items]]:
        settings, main = self.settings, self.models[0]
        rollouts = rollout_sequences(self.stage, settings)
        batch = self._batch(settings.micro_batch * METHODS[self.stage.method].sequences_per_row)
        # GRPO's own log-probabilities are those of its loss while it takes one step with them; with
        # a KL penalty an adapter's base is its reference.
        train, alone = self.stage.train, len(self.models) == 1
        again = whole(train, "num_iterations", 1) > 1 or (alone and train.get("beta", 0) != 0)
        own = self.stage.method != "grpo" or again
        readers = [
            read(self.kind(model), self._output(model), batch)
            for model in self.models
            if own or model is not main
        ]
        gathered = self._gathered(self.models)
        whole_weights = self._whole(main)
        if vllm.writes:
            # It has the cache, and is handed the weights: one by one, but with adapters, which are
            # merged into the whole (TRL's `VLLMGeneration.sync_weights`).
            written = vllm.rollout
            if not main.adapters:
                whole_weights = self._gathered((main,))
        else:
            written = writing(self.kind(main), rollouts, self.length)
        return [
            ("rollout", merge((steady, whole_weights, written))),
            ("score", merge((steady, gathered, max(readers, key=total, default={})))),
        ]

    def evaluation(self) -> list[tuple[str, Items]]:
        """One model is in memory at a time: a candidate writes (`generate`), candidates and
        reference read what was written (`score`), then the reward model does (`reward`)."""
        candidate, *rest = self.models
        others = [model for model in rest if not scores(model.role)]
        settings, length = self.settings, self.length
        largest = max((candidate, *others), key=lambda model: model.parameters)
        rows = settings.micro_batch * settings.accumulation

        def alone(model: Resident) -> Items:
            return {"weights": float(self.held[model.role].weights)}

        written = writing(self.kind(candidate, trains=False), rows, length)
        scored = reading(self.kind(largest, trains=False), settings.micro_batch, length)
        batch = Batch(settings.micro_batch, length.total, length.completion)
        phases = [
            ("load", alone(largest)),
            ("generate", merge((alone(candidate), self._gathered((candidate,)), written))),
            ("score", merge((alone(largest), self._gathered((largest,)), scored))),
        ]
        for reward in rest:
            if scores(reward.role):
                judged = read(self.kind(reward, trains=False), "score", batch)
                phases.append(("reward", merge((alone(reward), self._gathered((reward,)), judged))))
        return phases

    def idle(self, phase: str, items: Items) -> float:
        """What the allocator holds beside `items`."""
        if self.settings.device == "cpu":
            return 0.0
        main, block, logits = self.models[0], 0.0, 0.0
        if phase == "loss" and not self.stack.expandable:
            sequences = self.settings.micro_batch * METHODS[self.stage.method].sequences_per_row
            batch, kind = self._batch(sequences), self.kind(main)
            block = sum(through(kind, batch.tokens, batch.length).values())
            logits = 2.0 * batch.sequences * batch.scored * main.shape.vocab
        return idle(phase, items, self.settings, self.stack, block=block, logits=logits)

    def kind(self, model: Resident, *, trains: bool = True) -> Kind:
        """How `model` is walked; what only reads is in the precision of the products."""
        peft = self.stage.peft if model.adapters else None
        if model.trained:
            own = self._stack(model)
            return Kind(model.shape, gathered(own) if self.sharded else own, peft, trains)
        stack = replace(self.stack, weights=self.stack.compute, autocast=False)
        return Kind(model.shape, stack, None, trains=False)

    def _stack(self, model: Resident) -> Stack:
        aside = self.stage.peft is not None and model.trained and not model.adapters
        return beside(self.stack) if aside else self.stack

    def _output(self, model: Resident) -> Output:
        return "score" if scores(model.role) else METHODS[self.stage.method].output

    def _weights(self) -> Items:
        items: Items = {"weights": float(self.held[self.models[0].role].weights)}
        for model in self.models[1:]:
            name = _NAMES.get(model.role, model.role)
            name = _NAMES["reward_model"] if name.startswith(REWARDS) else name
            items[name] = items.get(name, 0.0) + self.held[model.role].weights
        return items

    def _written(self) -> Items:
        """What is there only while the model is written; on a CPU that is the host's part, too."""
        found = {"gathered weights": float(self.saved.gathered)}
        if self.settings.device == "cpu":
            found["saved model"] = float(self.saved.host)
        return found

    def _exchange(self, models: tuple[Resident, ...], blocks: int = 1) -> Items:
        found = exchange(models, self.stack, self.settings, blocks=blocks)
        return {name: float(size) for name, size in found.items()}

    def _gathered(self, models: tuple[Resident, ...]) -> Items:
        """What ZeRO-3 gathers of `models` layer by layer; there are no gradients to reduce."""
        return {k: v for k, v in self._exchange(models).items() if k != "buckets"}

    def _whole(self, writer: Resident) -> Items:
        """The weights that the writer of rollouts gathers: all, or a few layers at a time."""
        if self.settings.zero_stage == 3 and self.settings.gather_for_generation:
            return {"gathered weights": float(width(self.stack.weights) * writer.parameters)}
        return self._gathered((writer,))
