"""The class of a failure from the exception that a trainer process died by.

The only place where the words of torch, of DeepSpeed and of the system are read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from launcher.errors import LauncherError
from launcher.records.attempts import Kind
from launcher.records.failures import FailureClass
from launcher.worker.outcome import Ends

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE}
_DISK_WORDS = (
    "no space left on device", "disk quota exceeded", "read-only file system", "stale file handle",
    # torch's archive writer, whose write came to less than it asked for.
    "pytorchstreamwriter failed", "inline_container.cc",
)  # fmt: skip
_MEMORY_WORDS = (
    "out of memory",
    # torch's allocator for the CPU.
    "can't allocate memory", "defaultcpuallocator: not enough memory",
)  # fmt: skip
# Of a world that lost one of its processes, or could not meet.
_LOST_WORDS = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "eaddrinuse",
    "address already in use", "socket timeout", "timed out waiting", "gloo", "nccl", "tcpstore",
)  # fmt: skip
_WEB = {"requests", "httpx", "httpcore", "urllib3", "aiohttp", "huggingface_hub"}
_NETWORK_WORDS = ("couldn't connect to", "max retries exceeded", "name resolution")
_MAY_PASS = {408, 425, 429}


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, of the device or the host."""
    return isinstance(error, MemoryError) or _says(error, _MEMORY_WORDS)


def kind_of(error: BaseException, *, on_cpu: bool) -> Kind:
    """The class of the failure that `error` is. `on_cpu`: whether the stage trains on processors,
    where the host's memory is the device's."""
    if isinstance(error, Ends):
        return error.failed
    if isinstance(error, LauncherError):
        return "user"
    for each in _chain(error):
        found = _kind(each, on_cpu)
        if found is not None:
            return found
    return "program"


def _kind(error: BaseException, on_cpu: bool) -> Kind | None:
    if ran_out(error):
        on_host = isinstance(error, MemoryError) or "alloc_cpu" in str(error)
        memory: FailureClass = "host memory" if on_host and not on_cpu else "out of memory"
        return memory
    if (isinstance(error, OSError) and error.errno in _DISK) or _says(error, _DISK_WORDS):
        return "disk"
    if _of_the_network(error):
        return "network"
    name = type(error).__name__
    if name.startswith("Dist") and type(error).__module__.startswith("torch"):
        return "lost rank"
    if isinstance(error, RuntimeError):
        if "DataLoader worker" in str(error) and "killed by signal" in str(error):
            return "killed"
        if _says(error, _LOST_WORDS):
            return "lost rank"
    return None


def _of_the_network(error: BaseException) -> bool:
    """Whether a hub or tracker could not be reached. That it has not what was asked for is
    another matter, and comes again."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in _MAY_PASS:
        return False
    if type(error).__module__.split(".")[0] in _WEB:
        # Told to stay offline, it will be told so again.
        return "offline" not in type(error).__name__.lower()
    return isinstance(error, ConnectionError) or _says(error, _NETWORK_WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)
