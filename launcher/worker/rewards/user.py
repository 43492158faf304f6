"""A function of the user's file: loaded from the run's copy, and blamed for what it raises."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import UsageError


class UserFunction:
    """`name` of the file `path`, of which `copy` is the run's own.

    Called with keywords, of which it gets those that it names, or all where it takes `**kwargs`.
    A coroutine is run to its end.
    """

    def __init__(self, path: str, name: str, copy: Path) -> None:
        self._path, self._name, self._copy = path, name, copy
        self._function = self._load()
        parameters = inspect.signature(self._function).parameters.values()
        self._all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._takes = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}

    def __call__(self, keywords: Mapping[str, Any]) -> Any:
        """What the function returns. Raises UsageError with the line at fault where it raises."""
        known = {k: v for k, v in keywords.items() if self._all or k in self._takes}
        try:
            given = self._function(**known)
            return asyncio.run(given) if inspect.iscoroutine(given) else given
        except Exception as error:
            raise self._blamed(error, f"it was called with {', '.join(sorted(known))}") from error

    def _load(self) -> Callable[..., Any]:
        if not self._copy.is_file():
            raise UsageError(f"the run has no copy of {self._path}")
        spec = importlib.util.spec_from_file_location(
            f"launcher_user_{self._copy.stem}", self._copy
        )
        assert spec is not None and spec.loader is not None  # a .py file has both
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise self._blamed(error, "it is run once, when the training starts") from error
        function: Callable[..., Any] | None = getattr(module, self._name, None)
        if not callable(function):
            raise UsageError(
                f"{self._path} has no function {self._name}", hint="write FILE.py:FUNCTION"
            )
        return function

    def _blamed(self, error: Exception, hint: str) -> UsageError:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(self._copy)]
        if isinstance(error, SyntaxError) and error.filename == str(self._copy):
            own.append(error.lineno)
        line = f":{own[-1]}" if own else ""
        last = traceback.format_exception_only(error)[-1].strip()
        return UsageError(f"{self._path}{line} {self._name}: {last}", hint=hint)
