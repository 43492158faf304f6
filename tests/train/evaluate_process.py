"""One rank of an evaluation: `python evaluate_process.py FOLDER`, with torch's variables set.

Reads FOLDER/settings.json: `candidates`, `reward_model`, `zero3`. Rank 0 writes FOLDER/result.json
and, in FOLDER/left.json, the bytes of the tensors that are still in memory.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from launcher.recipe.types import Score
from launcher.shipped import shipped
from launcher.worker.evaluate.config import EvaluateConfig
from launcher.worker.evaluate.evaluate import evaluate

BASE = str(shipped("recipes") / "tiny" / "model")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Say backwards: {n}"}],
        # The second rank's rows have no completion, and one of all has no answer.
        "completion": None if n % 2 else f"{n} and {n}",
        "answer": None if n == 3 else str(n),
    }
    for n in range(7)
]
ZERO3 = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 2}


def bytes_of_tensors() -> int:
    """Of all tensors that Python knows, with the shares of ZeRO-3's parameters."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    tensors += [each.ds_tensor for each in tensors if hasattr(each, "ds_tensor")]
    storages = (each.untyped_storage() for each in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    if settings["world"] > 1:
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    result = evaluate(
        settings["candidates"],
        baseline="base",
        reward_model=settings["reward_model"],
        reference=BASE,
        rows=ROWS,
        scores={"accuracy": Score("numeric_answer"), "brief": Score("length", {"max": 4})},
        # The likeliest token always: sampling would differ between the ranks.
        config=EvaluateConfig(max_completion_length=8, temperature=0.0, num_samples=7),
        tokenizer=AutoTokenizer.from_pretrained(BASE),
        dtype=torch.float32,
        device="cpu",
        batch_size=2,
        seed=3,
        on_progress=lambda done, total: None,
        deepspeed=ZERO3 if settings["zero3"] else None,
    )
    if not dist.is_initialized() or dist.get_rank() == 0:
        (folder / "result.json").write_text(json.dumps(dataclasses.asdict(result)))
        (folder / "left.json").write_text(json.dumps(bytes_of_tensors()))
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # some gloo groups abort when the interpreter takes them down


if __name__ == "__main__":
    main(Path(sys.argv[1]))
