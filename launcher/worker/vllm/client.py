"""The trainers' side of a stage's server: waiting for it, reaching it, and not waiting for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from launcher.memory.server import served_tokens
from launcher.plan.types import StagePlan
from launcher.recipe.fields import fields
from launcher.recipe.types import Stage
from launcher.recipe.vllm import mode
from launcher.records import progress, serving
from launcher.records.paths import StagePaths
from launcher.worker import streams
from launcher.worker.vllm import address, serve

URL = "LAUNCHER_VLLM_URL"
GROUP_PORT = "LAUNCHER_VLLM_GROUP_PORT"
ANSWER = "LAUNCHER_VLLM_ANSWER_S"
"""The variable of the cluster's profile that says how long one answer may take."""
ANSWER_S = 3600.0
"""The same where it does not: TRL's client waits for ever for all completions of a rollout."""
_LENGTH = "vllm_max_model_length"
_POLL_S = 0.2
_SLACK_S = 60.0
"""What the server's own task may take to say that it failed."""


@dataclass(frozen=True)
class Place:
    """A trainer's task: one rank of one start of the stage's job."""

    stage: StagePaths
    stage_plan: StagePlan
    start: serving.Start
    rank: int


def wait(at: Place, given_up: Callable[[], bool]) -> serving.Server | None:
    """The server of this start of the job, ready or failed; None: `given_up` said so first."""
    limit = serve.start_s(at.stage_plan) + _SLACK_S
    began = time.monotonic()
    if at.rank == 0:
        now = time.time()
        waits = progress.Progress("server", 0, None, now, now, at.start.token)
        streams.forgive("progress.json", lambda: progress.write(at.stage, waits))
    while not given_up():
        found = _said(at)
        if found is not None:
            return found
        if time.monotonic() - began > limit:
            reason = f"the vLLM server's task did not say within {limit:g} s that it is ready"
            return serving.Server(at.start, "failed", reason=reason)
        time.sleep(_POLL_S)
    return None


def lost(at: Place) -> Callable[[], str | None]:
    """A question that may be asked often: why the server failed; None while it is well."""
    asked = 0.0

    def ask() -> str | None:
        nonlocal asked
        if time.monotonic() - asked < 5 * _POLL_S:
            return None
        asked = time.monotonic()
        found = _said(at)
        return found.reason if found is not None and found.state == "failed" else None

    return ask


def _said(at: Place) -> serving.Server | None:
    """What the server said last; None: nothing yet, or the disk does not say so now."""
    with suppress(OSError):
        return serving.read(at.stage, at.start)
    return None


def variables(at: Place, server: serving.Server, given: Mapping[str, str]) -> dict[str, str]:
    """What a trainer's environment needs on top of `given`: a world without the server's tasks, and
    the way to the server."""
    allocation = at.stage_plan.allocation
    host = server.url.split("//")[1].rsplit(":", 1)[0]
    own = address.towards(host)
    proxied = ",".join(filter(None, (given.get("no_proxy") or given.get("NO_PROXY"), host)))
    return {
        "WORLD_SIZE": str(allocation.processes),
        "LOCAL_WORLD_SIZE": str(allocation.tasks_per_node),
        URL: server.url,
        GROUP_PORT: str(address.free_port(own)),
        # Where vLLM's workers find the trainer that sends them weights.
        "VLLM_HOST_IP": own,
        "no_proxy": proxied,
        "NO_PROXY": proxied,
    }


def arguments(stage: Stage) -> dict[str, Any]:
    """The keywords of a trainer's config that say where the stage's server is; for an engine in the
    trainer's own process how long sequences get, lest it makes room for the model's whole context.
    """
    longest = served_tokens(stage)
    if URL in os.environ:
        return {
            "vllm_server_base_url": os.environ[URL],
            "vllm_group_port": int(os.environ[GROUP_PORT]),
        }
    if mode(stage) == "colocate" and longest and _LENGTH in fields(stage.method).schemas:
        return {_LENGTH: longest}
    return {}


def bound(trainer: Any) -> None:
    """Let no request of the trainer's client to its server go without an answer for ever.

    TRL's client has no time limit for an answer, and repeats a request up to five times.
    """
    generation = getattr(trainer, "vllm_generation", trainer)
    client = getattr(generation, "vllm_client", None)
    if client is None:
        # On all ranks but the first, and where the trainer has no server.
        return
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    limit = float(os.environ.get(ANSWER, ANSWER_S))

    class Patient(HTTPAdapter):
        def send(self, request: Any, *words: Any, **options: Any) -> Any:
            options["timeout"] = limit
            try:
                return super().send(request, *words, **options)
            except requests.exceptions.Timeout as error:
                raise RuntimeError(
                    f"the vLLM server has stalled: no answer to {request.path_url} within"
                    f" {limit:g} s ({ANSWER} in the profile's `env` says how long it may take)"
                ) from error

    # A generation that was not answered is not asked for again: it may still go on.
    retries = Retry(total=5, connect=5, read=False, status=3, status_forcelist=[502, 503],
                    backoff_factor=1, allowed_methods=["POST", "GET"])  # fmt: skip
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, Patient(max_retries=retries, pool_maxsize=64))
