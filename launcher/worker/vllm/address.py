"""Addresses and ports of a stage's server, found where they are used."""

from __future__ import annotations

import os
import socket

LOOPBACK = "127.0.0.1"


def towards(peer: str) -> str:
    """This node's address on the way to `peer`, a name or an address. Raises OSError.

    Not what the node's own name resolves to, which is the loopback device on many systems.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: the kernel only chooses the way.
        probe.connect((peer, 9))
        found: str = probe.getsockname()[0]
        return found


def own(nodes: int) -> str:
    """This node's address for the other tasks of a job of so many nodes: the loopback device where
    there are no others."""
    return LOOPBACK if nodes == 1 else towards(os.environ["MASTER_ADDR"])


def free_port(address: str) -> int:
    """A port that nothing listens on, so that jobs that share a node do not meet."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        found: int = probe.getsockname()[1]
        return found
