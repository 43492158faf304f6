"""The text of every configuration file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from devslurm.layout import (
    CLUSTER_NAME,
    CPUS,
    GPUS,
    KINDS,
    MEMORY_MIB,
    NODES,
    PARTITIONS,
    Layout,
    Ports,
)

DATABASE_USER = "slurm"

# The first version that knows the key; older ones refuse a file that has it.
_PREEMPT_PARAMETERS = (24, 5)


def slurm_conf(
    layout: Layout,
    ports: Ports,
    *,
    version: tuple[int, int],
    accounting: bool,
    grace: int,
    inside: bool,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """slurm.conf for Slurm `version` (22, 5). `inside`: as the daemons and the jobs see it;
    `settings`: keys that are to have other values, or are not in it; with "" they are left out."""
    base = layout.base
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        "SlurmctldHost=localhost(127.0.0.1)",
        f"SlurmctldPort={ports.controller}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        # cred_expire is also how long a requeued job is held back (120 s by default).
        f"AuthInfo=socket={layout.munge_socket},cred_expire=5",
        f"StateSaveLocation={base}/state",
        f"SlurmdSpoolDir={base}/spool/%n",
        f"SlurmctldPidFile={layout.pid_file('slurmctld')}",
        f"SlurmdPidFile={layout.pid_file('%n')}",
        f"SlurmctldLogFile={layout.log('slurmctld')}",
        f"SlurmdLogFile={layout.log('%n')}",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "DefMemPerCPU=1000",
        "GresTypes=gpu",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "PropagateResourceLimits=NONE",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=5",
        "JobAcctGatherParams=OverMemoryKill",
        "KillWait=5",
        "SlurmdTimeout=15",
        "SchedulerParameters="
        "batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=100000",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "PreemptParameters=send_user_signal"
        if version >= _PREEMPT_PARAMETERS
        else "SlurmctldParameters=preempt_send_user_signal",
    ]
    if inside:
        # Bind to what the host name resolves to: 127.0.0.1 on the nodes. Outside, the machine's
        # name may resolve to anything or nothing, so that clients are left without.
        lines.append("CommunicationParameters=NoCtldInAddrAny,NoInAddrAny")
    if accounting:
        tres = ",".join(["gres/gpu", *(f"gres/gpu:{kind.gpu}" for kind in KINDS)])
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={ports.database}",
            # AuthInfo is not used towards slurmdbd.
            f"AccountingStoragePass={layout.munge_socket}",
            f"AccountingStorageTRES={tres}",
            "AccountingStorageEnforce=associations,limits,qos",
        ]
    lines = [line for line in lines if line.partition("=")[0] not in settings]
    lines += [f"{key}={value}" for key, value in settings.items() if value]
    for kind in KINDS:
        lines += [
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={ports.node(name)} "
            f"CPUs={CPUS} RealMemory={MEMORY_MIB} Gres=gpu:{kind.gpu}:{GPUS} "
            # By this the launcher's discovery knows that jobs compute on CPU here.
            "Feature=gpu_stand_in"
            for name in kind.names
        ]
    for part in PARTITIONS:
        nodes = ",".join(kind.hostlist for kind in part.kinds)
        preemption = (
            f"PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}"
            if part.preemptible
            else "PriorityTier=10 PreemptMode=OFF"
        )
        lines.append(
            f"PartitionName={part.name} Nodes={nodes} MaxTime={part.max_time} "
            f"Default={'YES' if part.default else 'NO'} {preemption}"
        )
    return "\n".join(lines) + "\n"


def gres_conf(layout: Layout) -> str:
    """gres.conf. Slurm counts GPUs only where their files are character devices."""
    files = layout.device(f"[0-{GPUS - 1}]")
    return "".join(
        f"NodeName={name} Name=gpu Type={kind.gpu} File={files}\n"
        for kind in KINDS
        for name in kind.names
    )


def slurmdbd_conf(layout: Layout, ports: Ports) -> str:
    return "\n".join(
        [
            f"AuthInfo=socket={layout.munge_socket}",
            "DbdHost=localhost",
            "DbdAddr=127.0.0.1",
            f"DbdPort={ports.database}",
            "SlurmUser=root",
            "CommunicationParameters=NoInAddrAny",
            f"PidFile={layout.pid_file('slurmdbd')}",
            f"LogFile={layout.log('slurmdbd')}",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            f"StorageUser={DATABASE_USER}",
            f"StoragePass={DATABASE_USER}",
            "StorageLoc=slurm_acct",
            "CommitDelay=1",
            "",
        ]
    )


def database_init() -> str:
    """SQL that makes the user of slurmdbd; the server listens on its socket alone."""
    return (
        f"CREATE USER IF NOT EXISTS '{DATABASE_USER}'@'localhost'"
        f" IDENTIFIED BY '{DATABASE_USER}';\n"
        f"GRANT ALL ON slurm_acct.* TO '{DATABASE_USER}'@'localhost';\n"
    )


def hosts(machine: str, own: str) -> str:
    """/etc/hosts of the daemons and jobs.

    Every node, and the host name `machine`, is this machine; other names are as in `own`, the
    text of the machine's file.
    """
    names = dict.fromkeys(["localhost", *NODES, machine])
    lines = [f"127.0.0.1 {name}" for name in names]
    for line in own.splitlines():
        address, *rest = line.partition("#")[0].split() or [""]
        others = [name for name in rest if name not in names]
        if others:
            lines.append(" ".join([address, *others]))
    return "\n".join(lines) + "\n"
