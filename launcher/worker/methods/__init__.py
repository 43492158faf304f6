"""One small file a method; `run(context, stop)` gives what was finished, or None if stopped."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from launcher.recipe.methods import METHODS
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable


def run(context: Context, stop: Stop) -> Finished | None:
    """Run the stage by its method.

    What is made anew before a trainer seeds itself (the head of a reward model) comes from the
    stage's seed, too.
    """
    if METHODS[context.stage.method].config is not None:
        from transformers import set_seed

        from launcher.worker import checkpoint

        checkpoint.check(context)
        set_seed(context.stage.seed)
    module = importlib.import_module(f"{__name__}.{context.stage.method}")
    method: Callable[[Context, Stop], Finished | None] = module.run
    return method(context, stop)
