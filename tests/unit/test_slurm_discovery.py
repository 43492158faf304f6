"""A profile from the text of sinfo and scontrol."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.cluster.gpu_types import gpu_of
from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler import nvidia_smi
from launcher.scheduler.discover import (
    UNTYPED,
    Run,
    discover,
    parse_config,
    parse_gres,
    parse_partitions,
    parse_sinfo,
    parse_time,
    probe,
)

# As Slurm 22.05 prints them.
PARTITIONS_22 = """\
PartitionName=a100 AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=a100-[1-3] PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=192 TotalNodes=3 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=192,mem=1536G,node=3,billing=192
PartitionName=spare AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=a100-[1-3],v-1,cpu-1 PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=256 TotalNodes=5 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=256,mem=2T,node=5,billing=256
"""  # noqa: E501
NODES = """\
a100|a100-1|idle|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
spare|a100-1|idle|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
a100|a100-2|mixed|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
spare|a100-2|mixed|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
a100|a100-3|drained|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
spare|a100-3|drained|64|524288|gpu:a100_40gb:8(S:0-1)|(null)
spare|v-1|allocated|40|380000|gpu:v100:4|skylake,ib
spare|cpu-1|idle~|128|256000+|(null)|(null)
"""
CONFIG_22 = """\
Configuration data as of 2026-11-22T19:13:06
ClusterName             = lab
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SLURM_VERSION           = 22.05.8
"""
# As Slurm 24.11 prints them: more fields, limits, and a partition without preemption of its own.
PARTITIONS_24 = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=gpu-limits DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO ExclusiveTopo=NO GraceTime=0 Hidden=NO MaxNodes=2 MaxTime=1-12:30:00 MinNodes=0 LLN=NO MaxCPUsPerNode=96 MaxCPUsPerSocket=UNLIMITED Nodes=g[1-4] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=512 TotalNodes=4 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=4000 MaxMemPerNode=512000 TRES=cpu=512,mem=4T,node=4,billing=512,gres/gpu=32 TRESBillingWeights=CPU=1.0,Mem=0.25G
PartitionName=closed AllowGroups=ALL State=DOWN MaxTime=UNLIMITED Nodes=g[1-4] PriorityTier=9 PreemptMode=OFF RootOnly=NO
PartitionName=admin AllowGroups=ALL State=UP MaxTime=UNLIMITED Nodes=g[1-4] PriorityTier=1 PreemptMode=OFF RootOnly=YES
"""  # noqa: E501
NODES_24 = "".join(
    f"{part}|g{i}|{state}|128|1031000|gpu:8(S:0-1)|(null)\n"
    for part in ("gpu", "closed", "admin")
    for i, state in enumerate(("idle", "mixed-", "planned", "down*"), 1)
)


def slurm(partitions: str, nodes: str, config: str) -> Run:
    """What the commands print, in the place of the commands."""
    texts = {"sinfo": nodes, "partition": partitions, "config": config}

    def run(argv: list[str], timeout: float = 30) -> str:
        return texts["sinfo" if argv[0] == "sinfo" else argv[2]]

    return run


def test_a_mixed_cluster_becomes_a_profile() -> None:
    found = discover(slurm(PARTITIONS_22, NODES, CONFIG_22), "lab")
    a100 = NodeGroup(nodes=2, cpus=64, memory_gib=512.0, gpu="a100_40gb", gpus=8)
    assert found == Cluster(
        name="lab",
        partitions=(
            Partition("a100", (a100,), max_time_minutes=7 * 1440),
            Partition(
                "spare",
                (
                    a100,
                    NodeGroup(nodes=1, cpus=40, memory_gib=371.09, gpu="v100", gpus=4),
                    NodeGroup(nodes=1, cpus=128, memory_gib=250.0),
                ),
                preemptible=True,
            ),
        ),
        gpus={
            "a100_40gb": Gpu(memory_gib=39.4, price=1.0),
            "v100": Gpu(memory_gib=None, bf16=False),
        },
    )


def test_limits_of_a_partition_cap_its_nodes_and_closed_ones_are_left_out() -> None:
    found = discover(slurm(PARTITIONS_24, NODES_24, CONFIG_22), "site")
    (only,) = found.partitions
    assert only.name == "gpu"
    assert only.max_time_minutes == 36 * 60 + 30
    assert only.groups == (NodeGroup(nodes=2, cpus=96, memory_gib=500.0, gpu=UNTYPED, gpus=8),)
    assert found.typed is False
    assert found.gpus == {UNTYPED: Gpu(memory_gib=None)}


def test_only_a_tier_above_on_the_same_nodes_preempts() -> None:
    def preemptible(partitions: str, nodes: str, config: str) -> list[str]:
        found = discover(slurm(partitions, nodes, config), "lab")
        return [partition.name for partition in found.partitions if partition.preemptible]

    assert preemptible(PARTITIONS_22, NODES, CONFIG_22) == ["spare"]
    level = PARTITIONS_22.replace("PriorityTier=1 ", "PriorityTier=10 ")
    assert preemptible(level, NODES, CONFIG_22) == []
    apart = "".join(line for line in NODES.splitlines(True) if not line.startswith("spare|a100"))
    assert preemptible(PARTITIONS_22, apart, CONFIG_22) == []
    by_qos = CONFIG_22.replace("partition_prio", "qos")
    assert preemptible(PARTITIONS_22, NODES, by_qos) == []


def test_a_cluster_whose_gpus_are_stand_ins_computes_on_cpu() -> None:
    nodes = NODES.replace("(null)\n", "fast,gpu_stand_in\n")
    assert discover(slurm(PARTITIONS_22, nodes, CONFIG_22), "dev").device == "cpu"


def test_gpus_without_a_type_are_left_out_where_others_have_one() -> None:
    nodes = NODES.replace("gpu:v100:4", "gpu:4")
    found = discover(slurm(PARTITIONS_22, nodes, CONFIG_22), "lab")
    assert set(found.gpus) == {"a100_40gb"}
    assert {group.gpu for group in found.partitions[1].groups} == {"a100_40gb", None}


def test_a_slurm_with_no_node_in_service_is_unavailable() -> None:
    nodes = NODES.replace("idle", "down").replace("mixed", "drained").replace("allocated", "fail")
    with pytest.raises(SchedulerUnavailable, match="no partition"):
        discover(slurm(PARTITIONS_22, nodes, CONFIG_22), "lab")


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:8", {UNTYPED: 8}),
        ("gpu", {UNTYPED: 1}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:4(S:0,3),mps:400,gpu:v100:2(S:1)", {"a100": 4, "v100": 2}),
        ("gpu:a100:no_consume:2,shard:a100:8", {"a100": 2}),
        ("gpu:no_consume:2", {UNTYPED: 2}),
        ("gpu:a100:0", {}),
    ],
)
def test_gres_is_counted_by_type(gres: str, gpus: dict[str, int]) -> None:
    assert parse_gres(gres) == gpus


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("UNLIMITED", None), ("7-00:00:00", 10080), ("12:00:00", 720), ("30:00", 30), ("NONE", None)],
)
def test_limits_are_whole_minutes(text: str, minutes: int | None) -> None:
    assert parse_time(text) == minutes


def test_a_node_that_does_not_respond_is_out_of_service_and_one_saving_power_is_not() -> None:
    lines = parse_sinfo("p|a|idle*|8|1000|(null)|(null)\np|b|idle~|8|1000|(null)|(null)\nnoise\n")
    assert [(line.node, line.usable) for line in lines] == [("a", False), ("b", True)]


def test_partitions_and_configuration_are_read_in_both_forms() -> None:
    assert [line.max_nodes for line in parse_partitions(PARTITIONS_22)] == [None, None]
    assert [line.open for line in parse_partitions(PARTITIONS_24)] == [True, False, False]
    assert parse_config(CONFIG_22)["PreemptType"] == "preempt/partition_prio"


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("a100_40gb", 39.4),
        ("a100-sxm4-80gb", 79.1),
        ("nvidia_a100_80gb_pcie", 79.1),
        ("NVIDIA A100-SXM4-40GB", 39.4),
        ("a100", None),
        ("gpu", None),
        ("h100", None),
        ("h100_80gb", 79.1),
        ("v100_32gb", 31.7),
        ("v100", None),
        ("tesla_v100-sxm2-16gb", 15.7),
        ("l40s", 44.3),
        ("a100_64gb", None),
        ("a100_4g.40gb", None),
        ("someday_9000", None),
    ],
)
def test_a_name_tells_the_memory_only_where_it_leaves_no_doubt(
    name: str, memory: float | None
) -> None:
    assert gpu_of(name).memory_gib == memory


def test_volta_and_turing_have_no_bf16() -> None:
    assert [gpu_of(name).bf16 for name in ("v100", "t4", "a100", "gpu")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_nvidia_smi_lines_give_what_programs_may_use() -> None:
    text = (
        "srun: job 5 queued and waiting for resources\n"
        "0, GPU-aa11, NVIDIA H100 80GB HBM3, 1, 81078\n"
        "1, GPU-bb22, NVIDIA A100-SXM4-80GB, [N/A], [N/A]\n"
    )
    (device,) = nvidia_smi.parse(text)
    assert (device.index, device.name, device.memory_gib) == (0, "NVIDIA H100 80GB HBM3", 79.18)


def test_a_probe_fills_in_unknown_types_from_a_job_on_each_shape_of_node() -> None:
    found = discover(slurm(PARTITIONS_22, NODES, CONFIG_22), "lab")
    asked: list[list[str]] = []

    def run(argv: list[str], timeout: float = 30) -> str:
        asked.append(argv)
        return "0, GPU-aa, Tesla V100-SXM2-32GB, 0, 32499\n"

    probed = probe(run, replace(found, account="ours"))
    assert probed.gpus["v100"] == Gpu(memory_gib=31.74, bf16=False)
    assert probed.gpus["a100_40gb"] == found.gpus["a100_40gb"]
    (argv,) = asked
    assert argv[0] == "srun"
    assert {"--partition=spare", "--gres=gpu:v100:1", "--account=ours"} <= set(argv)
    assert argv[-3:] == nvidia_smi.command()


def test_a_probe_that_fails_says_why_and_leaves_the_type_unknown() -> None:
    found = discover(slurm(PARTITIONS_22, NODES, CONFIG_22), "lab")
    notes: list[str] = []

    def run(argv: list[str], timeout: float = 30) -> str:
        raise LauncherError("srun: Unable to allocate resources")

    assert probe(run, found, notes.append) == found
    assert notes == ["v100 in spare: srun: Unable to allocate resources"]
