"""How fast the machines of an allocation are: what a profile says, as rates that are attained."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.cluster.gpu_types import with_speeds
from launcher.cluster.types import Cluster, Gpu, NodeGroup
from launcher.recipe.types import Dtype

ATTAINED = 0.7
"""Of the data sheet's bandwidth: memory, NVLink and network, by long transfers."""
SHARED_PCIE = 0.4
"""Of PCIe's, for GPUs that exchange with each other over it."""
SINGLE_MFU = 0.7
"""Of the float32 peak, which has no tensor cores to be fed."""
NETWORK_GBITS = {"infiniband": 400.0, "ethernet": 25.0, "none": 10.0}
"""Of a node, where the profile does not say: two adapters of 200 Gbit/s, one of 25."""
ASSUMED = Gpu(
    tflops_half=125.0,
    tflops_single=20.0,
    bandwidth_gbs=700.0,
    nvlink_gbs=0.0,
    pcie_gbs=12.0,
    attainable_mfu=0.4,
)
"""A GPU that neither table nor profile knows: between a V100 and an A100."""
CORE_FLOPS = 15e9
"""One processor core in float32, attained in wide products."""


@dataclass(frozen=True)
class Speed:
    """Rates of one GPU (operations or bytes a second) and of its node."""

    peak: float
    """FLOP/s of the data sheet in the stage's precision."""
    rate: float
    """FLOP/s that long rows of a wide model attain."""
    memory: float
    link: float
    """To the node's other GPUs, in one direction."""
    network: float
    """Of a node, to the others."""
    pcie: float
    """To the host's memory."""
    storage: float
    """A node writes to the runs' file system."""
    known: bool
    """False: of a processor, or of a GPU type that nobody described; times are guesses."""


def speed_of(cluster: Cluster, group: NodeGroup, processes: int, dtype: Dtype) -> Speed:
    """The speed of each of `processes` on one node of `group`."""
    gbits = cluster.network_gbits or NETWORK_GBITS[cluster.interconnect]
    network, storage = ATTAINED * gbits / 8 * 1e9, cluster.storage_gbs * 1e9
    if cluster.device == "cpu":
        rate = CORE_FLOPS * max(1, group.cpus // max(1, group.gpus or processes))
        return Speed(rate, rate, 10e9, 2e9, network, 10e9, storage, known=False)
    assert group.gpu is not None
    gpu = with_speeds(group.gpu, cluster.gpus[group.gpu])
    known = gpu.tflops_half is not None and gpu.bandwidth_gbs is not None
    half = dtype != "float32"
    peak = 1e12 * _value(gpu, "tflops_half" if half else "tflops_single")
    pcie = 1e9 * _value(gpu, "pcie_gbs")
    nvlink = 1e9 * _value(gpu, "nvlink_gbs")
    return Speed(
        peak=peak,
        rate=peak * (_value(gpu, "attainable_mfu") if half else SINGLE_MFU),
        memory=ATTAINED * 1e9 * _value(gpu, "bandwidth_gbs"),
        link=ATTAINED * nvlink if nvlink else SHARED_PCIE * pcie,
        network=network,
        pcie=ATTAINED * pcie,
        storage=storage,
        known=known,
    )


def _value(gpu: Gpu, field: str) -> float:
    value: float | None = getattr(gpu, field)
    if value is None:
        value = getattr(ASSUMED, field)
    assert value is not None
    return float(value)
