"""A function that is called with TRL's keywords, and blamed for what it raises."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from launcher.errors import UsageError
from launcher.worker import classify


class Called:
    """What every such function shares: it gets the keywords that it names, or all where it takes
    `**kwargs`, and a coroutine is run to its end."""

    said: str
    """What it is called in errors, its file or module first."""
    source: str | None
    """The file whose lines are to blame, where it is known."""

    def takes(self, function: Callable[..., Any]) -> None:
        """Have `function` be the one that is called."""
        self._function = function
        parameters = inspect.signature(function).parameters.values()
        self._all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._takes = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}

    def __call__(self, keywords: Mapping[str, Any]) -> Any:
        """What the function returns. Raises UsageError with the line at fault where it raises; what
        tells of the machine (memory, a disk, the network) goes on as it is."""
        known = {k: v for k, v in keywords.items() if self._all or k in self._takes}
        try:
            given = self._function(**known)
            return asyncio.run(given) if inspect.iscoroutine(given) else given
        except Exception as error:
            if classify.of_the_machine(error):
                raise
            raise self.blamed(error, f"it was called with {', '.join(sorted(known))}") from error

    def blamed(self, error: Exception, hint: str) -> UsageError:
        """`error` as the fault of the function, with the last line of its own."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == self.source]
        if isinstance(error, SyntaxError) and error.filename == self.source:
            own.append(error.lineno)
        line = f":{own[-1]}" if own else ""
        place, _, name = self.said.rpartition(" ")
        last = traceback.format_exception_only(error)[-1].strip()
        return UsageError(f"{place}{line} {name}: {last}", hint=hint)
