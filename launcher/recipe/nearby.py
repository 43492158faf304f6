"""Folders that lie where a hub name may have been meant for a path."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from launcher.recipe.document import Node
from launcher.recipe.problems import show, suggest
from launcher.recipe.values import HUB_NAME

_MANY = 1000
"""Entries of a folder that are looked through for one that is meant."""


def meant(node: Node) -> str | None:
    """What to say of a hub name whose owner is a folder beside the file that states it, or in the
    current one; None where there is none."""
    text = str(node.value)
    owner, slash, name = text.partition("/")
    if not slash or not re.fullmatch(HUB_NAME, text):
        return None
    for folder in dict.fromkeys((node.place.folder, Path.cwd())):
        start = "./" if folder == node.place.folder else f"{folder}/"
        taken = f"{show(text)} is taken for a hub name"
        try:
            if not (folder / owner).is_dir():
                continue
            if (folder / text).exists():
                return f"{taken}; for what lies here write {start}{text}"
            there = [entry.name for entry in islice((folder / owner).iterdir(), _MANY)]
        except OSError:
            continue
        near = suggest(name, there)
        return f"{taken} (a path starts with / or ./), and {start}{owner} has no {show(name)}" + (
            near if near.startswith("; did") else ""
        )
    return None
