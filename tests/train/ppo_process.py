"""One process of a distributed PPO run: `python ppo_process.py FOLDER`, with torch's variables set.

Reads FOLDER/settings.json: `zero` (0 is DDP), `lora`, `value_model`, `resume`, `after`, `train`.
Process 0 writes FOLDER/losses.json: what was logged after step `after`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from tests.train import ppo_task


def zero(stage: int) -> dict[str, Any]:
    return {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
    }


def classifier(seed: int) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        ppo_task.MODEL, num_labels=1, dtype=torch.float32
    )


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    train = settings["train"]
    if settings["zero"]:
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
        train["deepspeed"] = zero(settings["zero"])
    # The settings come first: ZeRO-3 shards what is loaded after them.
    args = ppo_task.config(folder / "run", **train)
    options: dict[str, Any] = {"args": args, "reward_model": classifier(5)}
    if settings.get("value_model"):
        options["value_model"] = classifier(6)
    if settings.get("lora"):
        options["peft_config"] = LoraConfig(r=4, target_modules="all-linear")
    trainer = ppo_task.trainer(folder / "run", options=options)
    trainer.train(resume_from_checkpoint=settings.get("resume"))
    trainer.save_model(str(folder / "final"))
    if trainer.accelerator.is_main_process:
        after = settings.get("after", 0)
        keys = ("loss", "loss/value_avg", "reward", "kl")
        report = {key: ppo_task.logged(trainer, key, after) for key in keys}
        (folder / "losses.json").write_text(json.dumps(report))
    trainer.accelerator.wait_for_everyone()
    sys.stdout.flush()
    os._exit(0)  # some gloo groups abort when the interpreter takes them down


if __name__ == "__main__":
    main(Path(sys.argv[1]))
