"""A model's configuration from the hub, where it can be reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from launcher.errors import UsageError
from launcher.models.cache import split

ENDPOINT = "https://huggingface.co"
TIMEOUT = 4.0
"""Seconds until the hub counts as out of reach, names looked up included."""
_LARGEST = 2**20
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class Hub:
    """Which hub is asked, and as whom."""

    endpoint: str = ENDPOINT
    token: str | None = None
    timeout: float = TIMEOUT


def hub_of(environment: Mapping[str, str], home: Path) -> Hub | None:
    """The hub as the environment sets it (huggingface_hub's own rules); None where the environment
    says that there is none (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`)."""
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(switch, "").upper() in _TRUE:
            return None
    endpoint = environment.get("HF_ENDPOINT") or ENDPOINT
    return Hub(endpoint.rstrip("/"), environment.get("HF_TOKEN") or _saved(environment, home))


def download(hub: Hub, reference: str, file: str) -> Mapping[str, Any] | None:
    """The JSON object in `file` of the hub model `reference`; None where it has no such file.

    Raises UsageError where the hub has no such model, does not let us read it, or does not answer
    within its time.
    """
    answer: SimpleQueue[Mapping[str, Any] | UsageError | None] = SimpleQueue()
    # Looking up a host's name cannot be given a time; a thread can be left behind.
    Thread(target=lambda: answer.put(_answer(hub, reference, file)), daemon=True).start()
    try:
        found = answer.get(timeout=hub.timeout)
    except Empty:
        found = _out_of_reach(hub, f"no answer within {hub.timeout:g} s")
    if isinstance(found, UsageError):
        raise found
    return found


def _answer(hub: Hub, reference: str, file: str) -> Mapping[str, Any] | UsageError | None:
    # Here, because reading a folder or the table needs none of it.
    from urllib.error import HTTPError
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    name, revision = split(reference)
    address = f"{hub.endpoint}/{quote(name)}/resolve/{quote(revision, safe='')}/{file}"
    try:
        request = Request(address)
        if hub.token is not None:
            # A server that it is sent on to gets no token.
            request.add_unredirected_header("Authorization", f"Bearer {hub.token}")
        with urlopen(request, timeout=hub.timeout) as response:
            loaded = json.loads(response.read(_LARGEST))
    except HTTPError as error:
        if error.headers.get("X-Error-Code") == "EntryNotFound":
            return None
        return _refused(hub, reference, error.code)
    except (OSError, ValueError) as error:
        return _out_of_reach(hub, str(getattr(error, "reason", error)))
    if not isinstance(loaded, dict):
        return UsageError(f"{address} holds no JSON object")
    return loaded


def _refused(hub: Hub, reference: str, code: int) -> UsageError:
    if code in (401, 403, 404):
        return UsageError(
            f"{hub.endpoint} shows no model `{reference}`",
            hint="check its name; for a gated or private one, accept its terms there and log in"
            " (`hf auth login`)",
        )
    return _out_of_reach(hub, f"it answers {code}")


def _out_of_reach(hub: Hub, why: str) -> UsageError:
    return UsageError(f"{hub.endpoint} could not be asked: {why}")


def _saved(environment: Mapping[str, str], home: Path) -> str | None:
    """The token that `hf auth login` keeps."""
    cache = environment.get("XDG_CACHE_HOME")
    base = Path(cache) if cache else home / ".cache"
    root = Path(environment.get("HF_HOME") or base / "huggingface")
    try:
        path = Path(environment.get("HF_TOKEN_PATH") or root / "token")
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None
