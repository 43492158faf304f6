"""Every fault, whichever file it is in."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from tests.faults.fault import FAULTS, Fault

_KINDS = Path(__file__).parent / "kinds"


def every() -> Mapping[str, Fault]:
    """Name → fault, in the order of files and of what is in them."""
    for path in sorted(_KINDS.glob("*.py")):
        importlib.import_module(f"tests.faults.kinds.{path.stem}")
    return FAULTS
