"""Kahneman–Tversky optimisation through TRL's KTOTrainer."""

from __future__ import annotations

from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.offline import order
from launcher.worker.offline.build import trained
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from launcher.worker.offline.preference import Kto

    return trained(context, stop, Kto, order.drawn)
