"""What is held of a finished stage: its weights against others', tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.methods_matrix.site import ROOT, Failed
from launcher.records.paths import StagePaths

BASE = ROOT / "recipes" / "tiny" / "model"
MERGED = 1e-5
"""How far logits may be where an adapter was folded into its base, in float32."""


def tensors(folder: Path) -> dict[str, Any]:
    """Name → tensor of every safetensors file in a folder."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def trained(stage: StagePaths) -> None:
    """Every trained tensor moved. Raises Failed with the names of those that did not."""
    import torch
    from safetensors.torch import load_file

    if stage.adapter.is_dir():
        # An adapter is born with a B of zeros.
        still = [n for n, t in tensors(stage.adapter).items() if "lora_B" in n and not t.any()]
    else:
        before, after = tensors(BASE), tensors(stage.model)
        still = [n for n in before if n in after and torch.equal(before[n], after[n])]
        if not set(before) & set(after):
            raise Failed("the model has none of the base's tensors")
    head = stage.model / "value_head.safetensors"
    if head.is_file():
        # PPO's value head is born as zeros.
        still += [n for n, t in load_file(head).items() if not t.any()]
    if still:
        raise Failed(f"{len(still)} tensors did not change, {still[0]} among them")


def the_same(one: StagePaths, other: StagePaths) -> None:
    """Both left the same weights, bit for bit. Raises Failed with how far they are apart."""
    for mine, theirs in ((one.model, other.model), (one.adapter, other.adapter)):
        if mine.is_dir() != theirs.is_dir():
            raise Failed(f"{mine.name}/ is there once")
        first, second = tensors(mine), tensors(theirs)
        if set(first) != set(second):
            raise Failed(f"{mine.name}/ has other tensors")
        apart = max(
            (float((first[n] - second[n]).abs().max()) for n in first if first[n].numel()),
            default=0.0,
        )
        if apart > 0:
            raise Failed(f"weights of {mine.name}/ up to {apart:.1e} apart")


def the_trainers_logits(stage: StagePaths, gives: str) -> None:
    """What `model/` computes is what the trainer's last checkpoint does. Raises Failed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    checkpoint = max(
        stage.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )
    kind: Any = AutoModelForCausalLM
    options: dict[str, Any] = {"dtype": torch.float32}
    if gives == "reward_model":
        kind, options = AutoModelForSequenceClassification, {**options, "num_labels": 1}
    saved = kind.from_pretrained(stage.model, **options)
    if stage.adapter.is_dir():
        from peft import PeftModel

        base = kind.from_pretrained(BASE, **options)
        trainers = PeftModel.from_pretrained(base, str(checkpoint))
        tolerance = MERGED
    else:
        if not list(checkpoint.glob("*.safetensors")):
            raise Failed(f"{checkpoint.name} holds no whole weights to compare with")
        trainers = kind.from_pretrained(checkpoint, **options)
        tolerance = 0.0
    pad = json.loads((stage.model / "config.json").read_text()).get("pad_token_id") or 0
    for model in (saved, trainers):
        model.config.pad_token_id = pad
        model.eval()
    ids = torch.arange(3, 3 + 4 * 24).reshape(4, 24)
    with torch.no_grad():
        gap = float((saved(ids).logits - trainers(ids).logits).abs().max())
    if gap > tolerance:
        raise Failed(f"logits up to {gap:.1e} from the trainer's")
