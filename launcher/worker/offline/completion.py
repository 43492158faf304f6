"""TRL's SFTTrainer."""

from __future__ import annotations

from trl import SFTTrainer

from launcher.worker.checkpoint import Committed


class Sft(Committed, SFTTrainer):
    """TRL's SFTTrainer."""
