"""Whether models, tokenizers and data go together, said before anything is queued."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.cli import output
from launcher.errors import UsageError

if TYPE_CHECKING:
    from launcher.recipe.types import Recipe


def check(recipe: Recipe) -> None:
    """Say what goes together otherwise than one may think. Raises UsageError for what cannot run.

    Read are folders, and the hub's cache on this machine; nothing is downloaded.
    """
    from launcher.models.cache import hub_cache
    from launcher.models.kind import kind_of
    from launcher.models.tokenizer import tokenizer_of
    from launcher.plan.agreement import findings
    from launcher.plan.kinds import wrong_kinds
    from launcher.recipe.paths import first_row

    cache = hub_cache(os.environ, Path.home())
    look_up = partial(tokenizer_of, cache=cache)
    found = wrong_kinds(recipe, partial(kind_of, cache=cache))
    found += findings(recipe, look_up, first_row, _text)
    for finding in found:
        if not finding.fatal:
            output.note(f"warning: {finding}")
    wrong = [recipe.placed(str(finding)) for finding in found if finding.fatal]
    if wrong:
        raise UsageError("\n".join(wrong))


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
