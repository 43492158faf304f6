"""A model of the hub at a revision of its own, as the folder that it has in this node's cache.

All that loads a model is given a folder or a hub name, and a name alone means `main`.
"""

from __future__ import annotations

import os
from functools import cache as once
from pathlib import Path

from launcher.errors import UsageError
from launcher.models import cache
from launcher.worker import fetch


def placed(reference: str, *, code: bool, weights: bool = True) -> str:
    """What `from_pretrained` takes for a folder, `NAME` or `NAME@REVISION`.

    Where nodes may ask the hub, what the cache lacks of a revision is fetched: with `weights` all
    of it, else its tokenizer; with `code` its modules, too. Raises UsageError where it cannot be
    had.
    """
    from huggingface_hub import constants

    if reference.startswith("/") or cache.split(reference)[1] == cache.MAIN:
        return reference
    if not constants.HF_HUB_OFFLINE:
        return _fetched(reference, code, weights)
    found = cache.committed(reference, cache.hub_cache(os.environ, Path.home()))
    if found is None:
        raise UsageError(
            f"the hub's cache of this node does not have {reference}",
            hint="`launcher resume RUN` fetches it where the hub can be reached",
        )
    return str(found)


@once
def _fetched(reference: str, code: bool, weights: bool) -> str:
    try:
        return str(fetch.model(reference, weights=weights, code=code))
    except (OSError, ValueError) as error:
        raise UsageError(f"{reference} could not be had from the hub: {error}") from error
