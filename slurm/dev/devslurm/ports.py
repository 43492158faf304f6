"""Free TCP ports."""

from __future__ import annotations

import random
import socket

from devslurm.errors import DevSlurmError
from devslurm.layout import Ports

# Below the ports that Linux gives to outgoing connections (32768 and up).
_CANDIDATES = range(12000, 32000)


def choose(first: int | None) -> Ports:
    """The block of ports from `first` on; None: any free one. Raises DevSlurmError."""
    if first is not None:
        ports = Ports(first)
        taken = [port for port in ports.all if not _free(port)]
        if taken:
            raise DevSlurmError(f"port {taken[0]} is taken: give another --port, or none")
        return ports
    for _ in range(100):
        ports = Ports(random.choice(_CANDIDATES))
        if all(_free(port) for port in ports.all):
            return ports
    raise DevSlurmError("found no free block of ports: give one with --port")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the daemons do; connections that linger from an earlier cluster do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True
