"""What the machines offer, as frozen values. A profile in `slurm/clusters/` is one `Cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Gpu:
    """A GPU type, by the name that Slurm's gres gives it."""

    memory_gib: float | None = None
    """Usable device memory (GiB = 2**30 bytes) as the driver reports it; None: not known yet, and a
    plan refuses the type until the profile says."""
    bf16: bool = True
    price: float = 1.0
    """Cost of one GPU-hour, in any unit: only ratios count."""
    type: str | None = None
    """The model, where Slurm's own name does not tell it (`gpu: {type: a100_40gb}`)."""
    tflops_half: float | None = None
    """Peak of dense products in bfloat16 or float16 (10**12 operations a second). This and the
    following are None where `launcher.cluster.gpu_types` is to say."""
    tflops_single: float | None = None
    """The same in float32."""
    bandwidth_gbs: float | None = None
    """Device memory (10**9 bytes a second)."""
    nvlink_gbs: float | None = None
    """To the other GPUs of the node, of one GPU in one direction; 0: only over PCIe."""
    pcie_gbs: float | None = None
    """To the host's memory."""
    attainable_mfu: float | None = None
    """Share of the peak that a training of wide models on long rows reaches."""


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one shape within a partition."""

    nodes: int
    cpus: int
    memory_gib: float
    """Host memory a node (GiB)."""
    gpu: str | None = None
    """A key of `Cluster.gpus`; None: nodes without GPUs."""
    gpus: int = 0
    """GPUs a node."""


@dataclass(frozen=True)
class Partition:
    """A queue of the cluster and its nodes."""

    name: str
    groups: tuple[NodeGroup, ...]
    max_time_minutes: int | None = None
    """None: no limit."""
    preemptible: bool = False
    account: str | None = None
    qos: str | None = None


@dataclass(frozen=True)
class Cluster:
    """The machines that stages may run on."""

    name: str
    partitions: tuple[Partition, ...]
    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    engine: Literal["slurm", "local"] = "slurm"
    device: Literal["cuda", "cpu"] = "cuda"
    """What trainings compute on. `cpu` with GPUs listed is a development cluster whose GPUs are
    stand-ins: jobs ask Slurm for them and compute on CPU."""
    gpu_request: Literal["gres", "gpus-per-node"] = "gres"
    typed: bool = True
    """Whether the request names the type (`gpu:a100:4`) or only the count (`gpu:4`)."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    setup: tuple[str, ...] = ()
    """Shell lines run in the batch script before anything else (modules, environments). They come
    from the profile, which the cluster's user owns; no recipe can add one."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of every job (NCCL and the like)."""
    python: str | None = None
    """The interpreter on the nodes; None: the one that runs `launcher`."""
    nodes_may_submit: bool = True
    """Whether nodes reach Slurm's commands: a job that failed then acts on its chain itself."""
    scratch: str | None = None
    """A folder on each node's own disk, for temporary files; may name variables of the job."""
    interconnect: Literal["ethernet", "infiniband", "none"] = "ethernet"
    network_gbits: float | None = None
    """Gbit/s between nodes, of one node with all its adapters; None: what `interconnect` usually
    is (`launcher.plan.speed`)."""
    storage_gbs: float = 1.0
    """GB/s (10**9 bytes) that one node writes to the runs' file system."""
    secrets: str | None = None
    """A file of tokens (`NAME=VALUE` lines, 0600) that jobs read on the node; may begin with `~`;
    None: `~/.config/launcher/secrets.env`, where there is one."""
    ledger: str | None = None
    """A folder where everybody's runs leave what they measured, for everybody's plans."""

    def partition(self, name: str) -> Partition:
        """The partition called `name`. Raises KeyError."""
        for partition in self.partitions:
            if partition.name == name:
                return partition
        raise KeyError(name)
