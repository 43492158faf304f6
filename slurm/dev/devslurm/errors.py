"""The one error that `up` and `down` show."""

from __future__ import annotations


class DevSlurmError(Exception):
    """One sentence, and the way out."""
