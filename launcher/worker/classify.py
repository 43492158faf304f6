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

_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EIO, errno.EREMOTEIO,
    # Lustre has put this node out, and takes it in again.
    errno.ESHUTDOWN,
}  # fmt: skip
_DISK_AT_A_FILE = {errno.ENOTCONN, errno.ETIMEDOUT}
"""Of a file system where a file is named; else of a socket."""
_DISK_WORDS = (
    "no space left on device", "disk quota exceeded", "read-only file system", "stale file handle",
    # torch's archive writer, whose write came to less than it asked for.
    "pytorchstreamwriter failed", "inline_container.cc",
)  # fmt: skip
_DISK_OR_WORLD_WORDS = (
    "input/output error", "remote i/o error", "cannot send after transport endpoint shutdown",
    "transport endpoint is not connected",
)  # fmt: skip
"""Of the disk, where the transport between the ranks does not say so."""
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
# Of sampling from a policy whose weights are no numbers.
_NAN_WORDS = ("probability tensor contains either",)
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
    return "nan" if _says(error, _NAN_WORDS) else "program"


def of_the_machine(error: BaseException) -> bool:
    """Whether an exception tells of memory, a disk, a network or a lost process, not of a mistake
    in what was called."""
    return any(_kind(each, on_cpu=False) is not None for each in _chain(error))


def _kind(error: BaseException, on_cpu: bool) -> Kind | None:
    if ran_out(error):
        on_host = isinstance(error, MemoryError) or "alloc_cpu" in str(error)
        memory: FailureClass = "host memory" if on_host and not on_cpu else "out of memory"
        return memory
    if of_the_disk(error):
        return "disk"
    if _of_the_network(error):
        return "network"
    loader = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    if loader and "killed by signal" in str(error):
        return "killed"
    return "lost rank" if _of_the_world(error) else None


def of_the_disk(error: BaseException) -> bool:
    """Whether an exception says that a disk is full, or cannot be reached for now."""
    if _says(error, _DISK_WORDS):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        at_a_file = error.filename is not None and error.errno in _DISK_AT_A_FILE
        return at_a_file or error.errno in _DISK
    # Libraries in Rust have classes of their own, and the system's words.
    return _says(error, _DISK_OR_WORLD_WORDS) and not _of_the_world(error)


def is_full(error: OSError) -> bool:
    """Whether a disk has no room for what was written, or its user has none left there."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _of_the_world(error: BaseException) -> bool:
    """Whether the ranks could not meet, or one of them is gone."""
    kind = type(error)
    if kind.__name__.startswith("Dist") and kind.__module__.startswith("torch"):
        return True
    return isinstance(error, RuntimeError) and _says(error, _LOST_WORDS)


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
