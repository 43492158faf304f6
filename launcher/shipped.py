"""Where the data files that ship with the package lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The folder `name` (`recipes`, `slurm/clusters`, `deepspeed_configs`) as shipped.

    A wheel carries it under `launcher/share/`; a checkout has it at its top.
    """
    in_wheel = _PACKAGE / "share" / name
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / name
