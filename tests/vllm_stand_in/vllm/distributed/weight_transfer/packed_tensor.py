"""Sending weights in the order in which they were announced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def packed_nccl_broadcast_producer(
    iterator: Iterator[Any], group: Any, src: int, post_iter_func: Callable[[Any], Any]
) -> None:
    for item in iterator:
        group.connection.sendall(post_iter_func(item).detach().float().cpu().numpy().tobytes())
