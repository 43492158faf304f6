"""Times, memory sizes and names as a recipe writes them."""

from __future__ import annotations

import re

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""A stage or a label: it becomes a folder, a job's name and a table's heading."""
_WORD = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
RUN_NAME = rf"^{_WORD}$"
HUB_NAME = rf"^{_WORD}(/{_WORD})?$"
REVISION = rf"^{_WORD}(/{_WORD})*$"
"""A branch, tag or commit of a hub's model, as it stands behind an `@`."""

TIME_HELP = "a time such as 90m, 12h, 24:00:00 or 1-12:00:00"
SPAN_HELP = "a time such as 90s, 30m, 2h or 00:30:00"
MEMORY_HELP = "a size with its unit, such as 64GiB (2**30 bytes) or 64GB (10**9)"

_CLOCK = re.compile(r"(?:(\d{1,4})-)?(\d{1,5}):([0-5]\d):([0-5]\d)")
_UNITS = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?")
_SECONDS = re.compile(r"\d{1,6}s")
_MEMORY = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([MGT]i?B)")
_BYTES = {
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def minutes(text: str) -> int | None:
    """`text` as whole minutes, rounded up; None where it is no time, or one of several readings.

    `1:30` may be hours and minutes or (to Slurm) minutes and seconds, so it is not read.
    """
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, mins, seconds = (int(part or 0) for part in clock.groups())
        return (days * 24 + hours) * 60 + mins + (seconds > 0)
    units = _UNITS.fullmatch(text)
    if units and text:
        days, hours, mins = (int(part or 0) for part in units.groups())
        return (days * 24 + hours) * 60 + mins
    return None


def seconds(text: str) -> int | None:
    """`text` as seconds: what `minutes` reads, and `90s`; None where it is neither."""
    if _SECONDS.fullmatch(text):
        return int(text[:-1])
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, mins, rest = (int(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + mins) * 60 + rest
    whole = minutes(text)
    return None if whole is None else 60 * whole


def gib(text: str) -> float | None:
    """`text` in GiB (2**30 bytes); None where it is no size or has no unit."""
    match = _MEMORY.fullmatch(text)
    return float(match[1]) * _BYTES[match[2]] / 2**30 if match else None
