"""What the cluster is made of, and where its files lie. `slurm/clusters/dev.yaml` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "dev"
ACCOUNT = "dev"
CPUS = 64
MEMORY_MIB = 512 * 1024
GPUS = 8


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one shape: `prefix`-1, `prefix`-2, …"""

    prefix: str
    gpu: str
    count: int = 2

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}-{i}" for i in range(1, self.count + 1))

    @property
    def hostlist(self) -> str:
        return f"{self.prefix}-[1-{self.count}]"


@dataclass(frozen=True)
class PartitionSpec:
    name: str
    kinds: tuple[NodeKind, ...]
    max_time: str
    default: bool = False
    preemptible: bool = False


A100 = NodeKind("a100", "a100_40gb")
H100 = NodeKind("h100", "h100_80gb")
KINDS = (A100, H100)
NODES = tuple(name for kind in KINDS for name in kind.names)
PARTITIONS = (
    PartitionSpec("a100", (A100,), "7-00:00:00", default=True),
    PartitionSpec("h100", (H100,), "2-00:00:00"),
    PartitionSpec("preempt", (A100, H100), "1-00:00:00", preemptible=True),
)


@dataclass(frozen=True)
class Ports:
    """One block of TCP ports on the loopback device, from `first` on."""

    first: int

    @property
    def controller(self) -> int:
        return self.first

    @property
    def database(self) -> int:
        return self.first + 1

    def node(self, name: str) -> int:
        return self.first + 2 + NODES.index(name)

    @property
    def all(self) -> range:
        return range(self.first, self.first + 2 + len(NODES))


@dataclass(frozen=True)
class Layout:
    """Every path of one cluster, as the daemons are told them.

    `base` is the state folder, or a short link to it: Slurm's configuration has no quoting, and a
    socket's path may take 107 bytes.
    """

    base: Path

    @property
    def slurm_conf(self) -> Path:
        return self.base / "etc" / "slurm.conf"

    @property
    def daemon_conf(self) -> Path:
        """What the daemons and the jobs see in the place of `slurm_conf`."""
        return self.base / "etc" / "slurm.conf.daemons"

    @property
    def gres_conf(self) -> Path:
        return self.base / "etc" / "gres.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        return self.base / "etc" / "slurmdbd.conf"

    def hosts(self, mark: str) -> Path:
        """The `/etc/hosts` of the daemons; its name tells whose a process is."""
        return self.base / "etc" / f"hosts.{mark}"

    @property
    def munge_key(self) -> Path:
        return self.base / "etc" / "munge.key"

    @property
    def munge_socket(self) -> Path:
        return self.base / "run" / "munge.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.base / "run" / "mysql.sock"

    @property
    def database(self) -> Path:
        return self.base / "database"

    @property
    def database_init(self) -> Path:
        return self.base / "etc" / "database.sql"

    def device(self, index: int | str) -> Path:
        return self.base / "dev" / f"nvidia{index}"

    def pid_file(self, daemon: str) -> Path:
        """The daemon's own; Slurm replaces `%n` by the node's name."""
        return self.base / "run" / f"{daemon}.pid"

    def log(self, daemon: str) -> Path:
        return self.base / "log" / f"{daemon}.log"

    def folders(self) -> tuple[Path, ...]:
        names = ("etc", "run", "log", "dev", "state", "processes", *(f"spool/{n}" for n in NODES))
        return tuple(self.base / name for name in names)
