"""What the user asked for, as frozen values. Every later station reads these, none changes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Dtype = Literal["bfloat16", "float16", "float32"]
Offload = Literal["none", "optimizer", "all"]

STAGE_PREFIX = "stage:"


def stage_of(reference: str) -> str | None:
    """The stage that a model reference names (`stage:sft` → `sft`); None for a folder or name."""
    return reference[len(STAGE_PREFIX) :] if reference.startswith(STAGE_PREFIX) else None


@dataclass(frozen=True)
class Part:
    """A further data set of a mixture."""

    path: str
    name: str | None = None
    split: str = "train"
    keep: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Data:
    """A data set, and what the planner may know of it before it is read."""

    path: str
    """A hub name, or an absolute path of a json, jsonl, csv or parquet file, or a folder."""
    name: str | None = None
    """The hub data set's configuration."""
    split: str = "train"
    eval_path: str | None = None
    """Held-out rows; None takes `eval_split` of `path`."""
    eval_split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """TRL's column → the file's column."""
    rows: int | None = None
    pairs: bool = False
    """Whether each row is known to be a pair of answers (`chosen`, `rejected`)."""
    mean_tokens: int | None = None
    max_prompt_tokens: int | None = None
    """Longest prompt in tokens; enforced on the node (longer rows are dropped, and counted)."""
    keep: tuple[str, ...] = ()
    """The file's columns that are read; empty: all."""
    share: float = 1.0
    """Share of the rows that is taken, at random by the stage's seed."""
    also: tuple[Part, ...] = ()
    """Data sets whose rows are mixed in; columns that not all of them have are left out."""
    hold_out: float | None = None
    """Rows (below one: share of them) that are kept from training and evaluated on."""
    as_chat: bool = False
    """Whether a `prompt` of text becomes a conversation of one user's message."""
    system_prompt: str | None = None
    """The system message that conversations of a `prompt` column start with."""


@dataclass(frozen=True)
class Peft:
    """An adapter in place of full training."""

    method: Literal["lora"] = "lora"
    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()
    quantization: Literal["nf4", "nf4-double", "int8"] | None = None
    """How the frozen base is stored (QLoRA); `nf4-double` quantizes the scales too."""
    dora: bool = False
    """Weight-decomposed adapters: a trained magnitude for each output."""


@dataclass(frozen=True)
class Reward:
    """One judge of completions. Exactly one of `function` and `model` is given."""

    label: str
    function: str | None = None
    """`/abs/file.py:function`, or a name of `launcher.recipe.rewards.LIBRARY`."""
    model: str | None = None
    """A reward model: `stage:NAME`, absolute folder, or hub name."""
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of a function of the library."""


@dataclass(frozen=True)
class Score:
    """What an evaluation measures of each completion, beside the reward."""

    function: str
    """`/abs/file.py:function`, or a name of `launcher.recipe.rewards.LIBRARY`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of a function of the library."""


@dataclass(frozen=True)
class Bound:
    """What a stage's result must keep to, ends included; None: no end on that side."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Command:
    """A program of the user's as a stage. No shell reads it."""

    argv: tuple[str, ...]
    """`{LABEL}` stands for the folder of that input, `{out}` for the stage's own folder of results,
    `{model}` for the folder of the model that it gives; `{{` and `}}` are braces."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Label → model reference."""
    run: Literal["once", "node", "task"] = "once"
    """How many copies start: one in the job, one a node, or one a GPU."""
    gives: Literal["policy", "reward_model"] | None = None
    """What kind of model it leaves in `{model}`; None: none."""


@dataclass(frozen=True)
class Resources:
    """What the recipe pins of the machine's choices. None leaves the choice to the planner."""

    gpu: str | None = None
    """A GPU type of the cluster profile."""
    gpus: int | None = None
    """GPUs (on a CPU-only machine: processes) of the stage over all nodes."""
    server_gpus: int | None = None
    """GPUs of the stage's vLLM server (`train.vllm_mode: server`), on top of `gpus`."""
    nodes: int | None = None
    partition: str | None = None
    time_minutes: int | None = None
    zero_stage: int | None = None
    offload: Offload | None = None
    micro_batch: int | None = None
    gradient_checkpointing: bool | None = None
    cpus_per_task: int | None = None
    host_memory_gib: float | None = None
    """Host memory a node (GiB)."""
    hang_timeout_s: int | None = None
    """Seconds without a sign of life amid steps after which a trainer is taken for hung."""


@dataclass(frozen=True)
class Stage:
    """One job of the chain."""

    name: str
    method: str
    """A key of `launcher.recipe.methods.METHODS`."""
    models: Mapping[str, str]
    """Role (`model`, `policy`, `reference`, `reward_model`, `value_model`) → `stage:NAME`, absolute
    folder, or hub name. Optional roles that the recipe leaves out are absent."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    """`evaluate` only: label → model reference, in the order of the report."""
    baseline: str | None = None
    """`evaluate` only: the label that win rates are against; None: the first candidate."""
    tokenizer: str | None = None
    chat_template: str | None = None
    """Jinja text that replaces the tokenizer's own template; models that train here keep it."""
    dtype: Dtype = "bfloat16"
    """Precision of compute and of frozen weights; weights that train keep a float32 master."""
    seed: int = 42
    data: Data | None = None
    peft: Peft | None = None
    global_batch: int | None = None
    """Sequences (online RL: completions) of one optimizer step over all processes."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """The method's own config, key for key, without the keys that the launcher owns."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """`evaluate` only: label → a score of prompts and completions."""
    rewards: tuple[Reward, ...] = ()
    """What judges completions, of methods with `Method.judged`. A `reward_model` role is not
    repeated here."""
    gate: Mapping[str, Bound] = field(default_factory=dict)
    """Figure of the stage's result → what it must keep to, lest the chain stops there."""
    command: Command | None = None
    """`command` only."""
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Every upstream stage: those referred to by a model role, and those under `needs:`."""
    use: str | None = None
    """A finished model that stands in for this stage: nothing is run."""


@dataclass(frozen=True)
class Recipe:
    """A whole chain, its stages in an order in which each comes after those it needs."""

    name: str
    stages: tuple[Stage, ...]
    resolved: Mapping[str, Any]
    """The merged document (extends and overrides applied, paths absolute), as plain data for JSON
    or YAML. Loaded again it gives the same recipe."""
    shapes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Hub name → keys of the model's `config.json`, where neither cache nor table has it."""
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Dotted path of a key → `FILE:LINE:COLUMN` of its value."""
    warnings: tuple[str, ...] = ()
    """Notes for the user: old names that were taken as new ones, a batch that was derived."""

    def placed(self, message: str) -> str:
        """`message`, which begins with a key of the recipe, with the place of that key, or of the
        nearest above it, before it. What a stage does not say itself, the recipe may say for all of
        them. Any other message stays as it is."""
        key = message.partition(": ")[0]
        while key:
            for said in (key, ".".join(key.split(".")[2:])):
                if said in self.places:
                    return f"{self.places[said]} {message}"
            key = key.rpartition(".")[0]
        return message

    @property
    def identity(self) -> str:
        """Sixty-four hex digits: SHA-256 of the resolved document, name included."""
        text = json.dumps({"name": self.name, "recipe": self.resolved}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def stage(self, name: str) -> Stage:
        """The stage called `name`. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
