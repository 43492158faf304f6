"""What was found in a stage's pairs of answers before it trained on them."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.records import files
from launcher.records.paths import StagePaths


@dataclass(frozen=True)
class Pairs:
    """Counts over the training rows."""

    rows: int
    identical: int
    """Pairs whose chosen answer is the rejected one."""
    repeated: int
    """Pairs that stand in an earlier row, word for word."""
    reversed: int
    """Pairs that stand in an earlier row the other way round."""
    longer_chosen: int
    """Pairs whose chosen answer has more characters."""
    longer_rejected: int
    mean_chosen: float
    """Characters of a chosen answer."""
    mean_rejected: float
    warnings: tuple[str, ...] = ()
    """What of it is worth a look, in sentences."""
    schema: int = 1


def write(stage: StagePaths, found: Pairs) -> None:
    """Leave the findings in the stage's folder."""
    files.write_json(stage.pairs, found)


def read(stage: StagePaths) -> Pairs | None:
    """What the stage found; None where it has no pairs or did not start."""
    return files.read_json(stage.pairs, Pairs)
