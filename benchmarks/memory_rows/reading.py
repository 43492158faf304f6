"""A row → a `Case`, by the framework that its source is."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.memory_rows.case import Case, Unknowable
from benchmarks.memory_rows.row import Row
from benchmarks.memory_rows.sources import fms, litgpt, other, peft_library, qwen, torchtune
from launcher.errors import LauncherError

_SOURCES: tuple[tuple[re.Pattern[str], Callable[[Row], Case]], ...] = (
    (re.compile(r"fms-acceleration"), fms.read),
    (re.compile(r"ms-swift"), qwen.swift),
    (re.compile(r"qwen readme"), qwen.profiling),
    (re.compile(r"litgpt config"), litgpt.config_hub),
    (re.compile(r"litgpt"), litgpt.resource_tables),
    (re.compile(r"torchtune"), torchtune.read),
    (re.compile(r"peft metamath"), peft_library.comparison),
    (re.compile(r"peft docs"), peft_library.docs),
)


def case_of(row: Row) -> Case:
    """Raises Unknowable, with the reason, for a row that cannot be scored."""
    read = next((read for name, read in _SOURCES if name.search(row.source.lower())), other.read)
    try:
        return read(row)
    except LauncherError as error:
        raise Unknowable(str(error)) from error
