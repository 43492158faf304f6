"""Group relative policy optimisation through TRL's GRPOTrainer."""

from __future__ import annotations

from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from launcher.worker.online.build import grouped
    from launcher.worker.online.grouped import Grpo

    return fit(context, grouped(context, stop, Grpo), stop)
