"""The plan: the one document that the submitter, the job on the node and the report all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.cluster.types import Cluster
from launcher.memory.types import MemoryEstimate, Phase
from launcher.plan.calibration import Calibration
from launcher.plan.objective import Objective
from launcher.recipe.types import Offload, Stage

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Allocation:
    """What is asked of the scheduler: `nodes` × `tasks_per_node` trainers, one task a GPU; and the
    GPUs of the stage's vLLM server, each with a task too."""

    partition: str
    gpu: str | None
    """GPU type in the profile; None: no GPU is asked for."""
    gpu_memory_gib: float | None
    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    host_memory_gib: float
    """Host memory a node (GiB)."""
    time_minutes: int
    signal_lead_s: int = 120
    """Seconds between the warning signal and the end of the time limit."""
    server_gpus: int = 0
    """GPUs of the vLLM server (without GPUs: 1, its process); 0: the stage has none."""
    server_apart: bool = False
    """Whether the server has a node of its own, the last one, which is asked for like the others;
    else it stands beside the trainers on their only node."""

    @property
    def processes(self) -> int:
        """Trainers over all nodes: the world size. Their tasks come first; the next task's is the
        server, and those after it hold its GPUs."""
        return self.nodes * self.tasks_per_node

    @property
    def all_nodes(self) -> int:
        """Nodes of the job, the server's included."""
        return self.nodes + self.server_apart

    @property
    def all_tasks_per_node(self) -> int:
        """Tasks (GPUs) of each node of the job, the server's included."""
        return self.tasks_per_node + (0 if self.server_apart else self.server_gpus)

    @property
    def all_tasks(self) -> int:
        return self.all_nodes * self.all_tasks_per_node


@dataclass(frozen=True)
class Rejected:
    """An alternative that was considered, and why it lost."""

    what: str
    why: str
    hours: float | None = None
    """Predicted length of the stage there; None: it does not fit, or cannot be used."""
    gpu_hours: float | None = None


@dataclass(frozen=True)
class Prediction:
    """How fast a stage will be. See `launcher.plan.step_time` for what it is from."""

    step_seconds: float
    """Of one optimizer step, the rollouts' share included; of evaluation, of one batch."""
    slowest_step_seconds: float
    """Of a step with its rollout."""
    tokens_per_second: float
    """Over all GPUs, of the sequences that are trained on (evaluation: answered), padding apart."""
    mfu: float | None
    """Arithmetic that the method asks for, over the GPUs' peak; None on processors."""
    steps: int | None
    """Of the whole stage, as its trainer counts them; None: the rows of the data are not known."""
    seconds: float | None
    """Of the whole stage, with start and checkpoints; None: as above."""
    gpu_hours: float | None
    cost: float | None
    """GPU-hours × the type's price."""
    doubt: str = ""
    """Why no time limit was derived from it; empty: one was."""


@dataclass(frozen=True)
class Disk:
    """What a stage writes."""

    checkpoint_bytes: int
    checkpoints: int
    """That lie there at once, the one that is being written included."""
    model_bytes: int
    save_seconds: float
    """Of one checkpoint, at the profile's `storage_gbs`."""

    @property
    def total_bytes(self) -> int:
        return self.checkpoint_bytes * self.checkpoints + self.model_bytes


@dataclass(frozen=True)
class Rung:
    """What a stage is given after it ran out of memory: settings in place of its plan's own."""

    what: str
    """What is new on it, in words: `micro-batch 2`, `ZeRO 3`, `16 × a100_40gb on 2 nodes`."""
    allocation: Allocation
    same_allocation: bool
    """Whether that is the plan's own, so that the job which ran out can go on by itself."""
    keeps_checkpoints: bool
    """Whether checkpoints of the rung before can be gone on with: processes, ZeRO stage and offload
    are the same."""
    zero_stage: int
    offload: Offload
    gradient_checkpointing: bool
    micro_batch: int
    accumulation: int
    gather_for_generation: bool
    estimate: MemoryEstimate
    margin: float
    calibration: Calibration
    deepspeed: Mapping[str, Any] | None
    """The DeepSpeed configuration, complete; None: not used."""


@dataclass(frozen=True)
class StagePlan:
    """One stage: its allocation, its settings, and what was expected of them."""

    stage: Stage
    """The recipe's stage, whole."""
    allocation: Allocation
    zero_stage: int
    """0: no DeepSpeed on one process, DDP on several."""
    offload: Offload
    gradient_checkpointing: bool
    micro_batch: int
    """Sequences of one forward pass on one process."""
    accumulation: int
    estimate: MemoryEstimate
    margin: float
    """Share of the device's memory kept free."""
    deepspeed: Mapping[str, Any] | None
    """The DeepSpeed configuration, complete; None: not used."""
    rejected: tuple[Rejected, ...] = ()
    gather_for_generation: bool = True
    """Under ZeRO-3, whether each GPU holds the whole policy while it generates (TRL's
    `ds3_gather_for_generation`); False where that does not fit, which is slow."""
    calibration: Calibration = field(default_factory=Calibration)
    """What past runs say of the estimate and of the margin."""
    prediction: Prediction | None = None
    """None where nothing is run."""
    disk: Disk | None = None
    save_steps: int | None = None
    """Optimizer steps between checkpoints; None: the stage makes none, or not by steps."""
    server: Phase | None = None
    """The least that each GPU of the vLLM server needs; None: the stage has no server."""
    advice: tuple[str, ...] = ()
    """What a small change of the recipe would buy."""
    ladder: tuple[Rung, ...] = ()
    """What is tried when memory runs out, one after the other. The global batch is the same on all
    of them."""

    def at(self, rung: int) -> StagePlan:
        """The stage on a rung of its ladder; 0 is the plan itself. Raises IndexError where the
        ladder is shorter."""
        if rung == 0:
            return self
        if rung < 0:
            raise IndexError(f"no ladder has a rung {rung}")
        found = self.ladder[rung - 1]
        return replace(
            self,
            allocation=found.allocation,
            zero_stage=found.zero_stage,
            offload=found.offload,
            gradient_checkpointing=found.gradient_checkpointing,
            micro_batch=found.micro_batch,
            accumulation=found.accumulation,
            gather_for_generation=found.gather_for_generation,
            estimate=found.estimate,
            margin=found.margin,
            calibration=found.calibration,
            deepspeed=found.deepspeed,
        )

    def begins_anew(self, before: int, rung: int) -> int | None:
        """The first rung above `before`, up to `rung`, that cannot go on from checkpoints of the
        one below it, so that they are set aside; None: all can."""
        above = range(before + 1, rung + 1)
        return next((n for n in above if not self.ladder[n - 1].keeps_checkpoints), None)

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def runs(self) -> bool:
        """False where a finished model stands in: nothing is allocated, every size is zero."""
        return self.stage.use is None

    @property
    def sequences_per_step(self) -> int:
        """micro-batch × accumulation × processes: the stage's global batch."""
        return self.micro_batch * self.accumulation * self.allocation.processes


@dataclass(frozen=True)
class Plan:
    """What a recipe runs, where, and why there."""

    schema_version: int
    launcher_version: str
    trl_version: str
    """The TRL whose keys the recipe was checked against; compared on the node."""
    name: str
    identity: str
    """`Recipe.identity` of the recipe that was planned."""
    cluster: Cluster
    stages: tuple[StagePlan, ...]
    """In run order. A stage with `use` stands in it without being run."""
    evidence: str = ""
    """`Evidence.digest` of the past runs that it was made with."""
    objective: Objective = "cost"
    notes: tuple[str, ...] = ()
    """What could not be taken into account, in sentences."""
    trust_remote_code: bool = False
    """Whether code that lies beside a model may run: whoever submitted said so
    (`--trust-remote-code`), for no recipe can."""

    def stage(self, name: str) -> StagePlan:
        """The plan of the stage called `name`. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
