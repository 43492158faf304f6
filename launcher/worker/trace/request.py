"""What is to be traced, and what came of it, as JSON; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from launcher.errors import UsageError
from launcher.memory.stack import Stack
from launcher.memory.types import Settings
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Stage


@dataclass(frozen=True)
class Request:
    """One stage to trace."""

    stage: Stage
    configs: Mapping[str, Mapping[str, Any]]
    """Role → the model's `config.json`."""
    settings: Settings
    stack: Stack | None = None
    """None: built as the worker builds."""

    def config(self, role: str) -> Mapping[str, Any]:
        """The `config.json` of `role`; the main model's where the role has none of its own."""
        return self.configs.get(role) or self.configs[METHODS[self.stage.method].main_role]


@dataclass(frozen=True)
class Trace:
    """The allocated bytes of one training step."""

    name: str
    phases: Mapping[str, int]
    """Phase → peak, in the order they run."""
    resident: int
    """What stays between two optimizer steps."""
    live: tuple[tuple[str, int], ...]
    """Operator → bytes that it made and that lived at the peak, the largest first."""
    modelled: tuple[str, ...]
    seconds: float

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def parse(text: str | bytes) -> tuple[Request, ...]:
    """The stages to trace. Raises UsageError for what is no request."""
    try:
        raw = msgspec.json.decode(text)
        stages = raw["stages"] if isinstance(raw, dict) else None
        if not isinstance(stages, list):
            raise msgspec.ValidationError("there is no list `stages`")
        requests = tuple(msgspec.convert(one, Request) for one in stages)
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
        raise UsageError(
            f"this is no request for a trace: {error}",
            hint="`pydoc launcher.worker.trace` shows one",
        ) from error
    for request in requests:
        _check(request)
    return requests


def _check(request: Request) -> None:
    method = METHODS.get(request.stage.method)
    if method is None:
        raise UsageError(f"there is no method {request.stage.method!r} to trace")
    main = method.main_role
    for role in (main, *request.configs):
        if not (request.configs.get(role) or {}).get("model_type"):
            raise UsageError(
                f"the trace of {request.stage.name} needs the config of {role}, with `model_type`",
                hint="give the model's config.json whole",
            )


def answer(traces: tuple[Trace | Refused, ...], versions: Mapping[str, str]) -> str:
    """One line of JSON, as the package's docstring describes it."""
    return msgspec.json.encode(
        {"versions": dict(versions), "stages": [as_data(one) for one in traces]}
    ).decode()


@dataclass(frozen=True)
class Refused:
    """A stage that cannot be traced."""

    name: str
    refused: str


def as_data(trace: Trace | Refused) -> dict[str, Any]:
    """Plain data, for JSON."""
    data: dict[str, Any] = msgspec.to_builtins(trace)
    if isinstance(trace, Trace):
        data["peak"] = trace.peak
    return data
