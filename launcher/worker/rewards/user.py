"""A function of the user's: from the run's copy of a file, or imported on the node."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.worker.rewards.called import Called


class UserFunction(Called):
    """`name` of the file `path`, of which `copy` is the run's own. Raises UsageError."""

    def __init__(self, path: str, name: str, copy: Path) -> None:
        self._path, self._name, self._copy = path, name, copy
        self.said, self.source = f"{path} {name}", str(copy)
        self.takes(self._load())

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
            raise self.blamed(error, "it is run once, when the training starts") from error
        function: Callable[..., Any] | None = getattr(module, self._name, None)
        if not callable(function):
            raise UsageError(
                f"{self._path} has no function {self._name}", hint="write FILE.py:FUNCTION"
            )
        return function


class ImportedFunction(Called):
    """The function at a path of import, `package.module.function`. Raises UsageError."""

    def __init__(self, path: str) -> None:
        module_name, _, name = path.rpartition(".")
        self.said, self.source = f"{module_name} {name}", None
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the function {path} cannot be imported: {error}",
                hint="install its package where trainings run, or name a file (FILE.py:FUNCTION)",
            ) from error
        except Exception as error:
            raise self.blamed(error, "its module is imported when the training starts") from error
        function: Callable[..., Any] | None = getattr(module, name, None)
        if not callable(function):
            raise UsageError(
                f"the module {module_name} has no function {name}",
                hint="write package.module.function",
            )
        self.source = getattr(module, "__file__", None)
        self.takes(function)
