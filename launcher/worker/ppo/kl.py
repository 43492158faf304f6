"""Who sets the weight of the KL penalty: a constant, or a controller that keeps to a target.

Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2: a proportional controller on the log of
the weight, whose error is clipped to ±0.2. The gain is that of its authors' code: completions of
the rollout over a horizon.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from launcher.records import files

LARGEST_ERROR = 0.2
_FILE = "kl_controller.json"


@dataclass
class KLController:
    """Holds the weight of the KL penalty. `target` None leaves it as it is."""

    coef: float
    target: float | None = None
    """Nats a completion."""
    horizon: int = 10_000
    """Completions."""

    def update(self, kl: float, completions: int) -> None:
        """Move the weight by what a rollout showed: its mean KL of a completion, in nats."""
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coef *= 1 + error * completions / self.horizon

    def save(self, folder: Path) -> None:
        """Write the weight into a checkpoint, where it moves."""
        if self.target is not None:
            folder.mkdir(parents=True, exist_ok=True)
            files.replace(folder / _FILE, json.dumps({"coef": self.coef}).encode())

    def load(self, folder: Path) -> None:
        """Take the weight that a checkpoint holds; one of a fixed weight holds none."""
        path = folder / _FILE
        if self.target is not None and path.is_file():
            self.coef = float(json.loads(path.read_text())["coef"])
