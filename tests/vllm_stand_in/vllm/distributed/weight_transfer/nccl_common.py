"""The trainers' end of the way on which weights travel: a socket, where vLLM has NCCL."""

from __future__ import annotations

import socket
from typing import Any


class Endpoint:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        # TRL's client lets go of these.
        self.group = self


def trainer_init(init_info: dict[str, Any]) -> Endpoint:
    """Listen where the server was told to come to, until it has come."""
    address = init_info["master_address"], init_info["master_port"]
    with socket.create_server(address) as listener:
        listener.settimeout(60)
        return Endpoint(listener.accept()[0])
