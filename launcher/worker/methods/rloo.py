"""REINFORCE leave-one-out (RLOO) through TRL's RLOOTrainer."""

from __future__ import annotations

from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from launcher.worker.online.build import grouped
    from launcher.worker.online.grouped import Rloo

    return fit(context, grouped(context, stop, Rloo), stop)
