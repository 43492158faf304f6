"""What a node does with a model, a data set and a checkpoint that somebody else prepared.

python tests/attacks/on_node.py FOLDER MODEL WHAT…

Each WHAT is loaded as a stage would load it; prints one JSON object: WHAT → the error, or "loaded".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def policy(folder: Path) -> None:
    import torch

    from launcher.worker.models import load_causal

    load_causal(str(folder), torch.float32)


def reward(folder: Path) -> None:
    import torch

    from launcher.worker.models import load_reward_model

    load_reward_model(str(folder), torch.float32, 0)


def tokenizer(folder: Path) -> None:
    from types import SimpleNamespace

    from launcher.worker import models

    stage = SimpleNamespace(chat_template=None, train={})
    place: Any = SimpleNamespace(tokenizer=str(folder), stage=stage)
    models.tokenizer(place)


def data(folder: Path) -> None:
    from launcher.recipe.types import Data
    from launcher.worker import data as loading

    loading._load(Data(str(folder)), str(folder), "train")


def checkpoint(folder: Path) -> None:
    """Resume a training of the tiny model from a checkpoint whose states are planted."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(sys.argv[2])
    rows = Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}] * 4)
    arguments = TrainingArguments(
        str(folder.parent / "out"), max_steps=2, report_to=[], use_cpu=True, save_strategy="no"
    )
    Trainer(model, arguments, train_dataset=rows).train(resume_from_checkpoint=str(folder))


def main(root: Path, names: list[str]) -> None:
    found = {}
    for name in names:
        try:
            globals()[name.split("-")[0]](root / name)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = "loaded"
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3:])
