"""One small file a method; `run(context, stop)` gives what was finished, or None if stopped."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable


def run(context: Context, stop: Stop) -> Finished | None:
    """Run the stage by its method."""
    module = importlib.import_module(f"{__name__}.{context.stage.method}")
    method: Callable[[Context, Stop], Finished | None] = module.run
    return method(context, stop)
