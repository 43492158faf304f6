"""Tiny models that tests of evaluation hold against each other."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from launcher.shipped import shipped

BASE = str(shipped("recipes") / "tiny" / "model")


def save_policy(folder: Path) -> None:
    """Write a policy beside the base, with weights of its own; the seed is set."""
    torch.manual_seed(1)
    policy = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    policy.save_pretrained(folder)
