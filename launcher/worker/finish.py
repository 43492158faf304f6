"""The last act of a stage: `COMPLETE.json`, after everything that it names is on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.records import complete, inputs
from launcher.worker.context import Context, versions


@dataclass(frozen=True)
class Finished:
    """What a method leaves when it ran to its end."""

    metrics: Mapping[str, float]
    roots: Sequence[Path]
    """Folders and files that are the stage's result."""
    seconds: Mapping[str, float]

    def write(self, context: Context, peaks: Mapping[str, int]) -> None:
        upstream = {
            name: complete.digest(context.run.stage(name).complete)
            for name in context.stage.needs
            if context.plan.stage(name).stage.use is None
        }
        complete.write(
            context.paths,
            complete.Complete(
                stage=context.stage.name,
                method=context.stage.method,
                token=context.token,
                finished=time.time(),
                artifacts=complete.manifest(context.paths, self.roots),
                metrics=self.metrics,
                peak_bytes=peaks,
                seconds=self.seconds,
                versions=versions(),
                upstream=upstream,
                inputs=inputs.digests(context.paths),
            ),
        )
