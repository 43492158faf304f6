"""Profiles as files: those that ship with the package, and a user's own."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from launcher.cluster.reading import dump_profile, parse_profile
from launcher.cluster.types import Cluster
from launcher.errors import UsageError
from launcher.shipped import shipped

__all__ = ["dump_profile", "list_profiles", "load_profile"]


def list_profiles() -> tuple[str, ...]:
    """The names of the shipped profiles, sorted."""
    return tuple(sorted(path.stem for path in shipped("slurm/clusters").glob("*.yaml")))


def load_profile(name_or_path: str) -> Cluster:
    """The shipped profile of that name, else the profile in the file of that path.

    Raises UsageError when there is neither, or with every problem of the file.
    """
    if name_or_path in list_profiles():
        path = shipped("slurm/clusters") / f"{name_or_path}.yaml"
    else:
        path = Path(name_or_path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _no_such(name_or_path) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    return parse_profile(text, str(path))


def _no_such(name: str) -> UsageError:
    names = list_profiles()
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(names)}"
    return UsageError(f"no cluster profile {name!r}, shipped or as a file", hint=hint)
