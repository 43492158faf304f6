"""Evaluation on two processes finds what one process finds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.train.tiny_models import BASE, save_policy

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A policy beside the base and a reward model, both with weights of their own."""
    root = tmp_path_factory.mktemp("models")
    save_policy(root / "policy")
    reward = AutoModelForSequenceClassification.from_pretrained(
        BASE, num_labels=1, dtype=torch.float32
    )
    reward.save_pretrained(root / "reward")
    return {
        "candidates": {"base": BASE, "policy": str(root / "policy")},
        "reward_model": str(root / "reward"),
    }


def run(folder: Path, world: int, **settings: Any) -> dict[str, Any]:
    """What rank 0 of `world` processes found."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"world": world, **settings}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(HERE.parents[1]),
        }
        with (folder / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, str(HERE / "evaluate_process.py"), str(folder)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    codes = [rank.wait(timeout=300) for rank in ranks]
    assert codes == [0] * world, (folder / "rank0.log").read_text()[-3000:]
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any]) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("alone") / "run", 1, zero3=False, **models)


def numbers(found: Any) -> Any:
    """`found` with its numbers rounded: sums in another order differ in their last digits."""
    if isinstance(found, dict):
        return {key: numbers(value) for key, value in found.items()}
    if isinstance(found, list):
        return [numbers(value) for value in found]
    return pytest.approx(found, rel=1e-5, abs=1e-4) if isinstance(found, float) else found


@pytest.mark.parametrize("zero3", [False, True], ids=["whole weights", "weights shared by ZeRO-3"])
def test_seven_prompts_on_two_processes_come_out_as_on_one(
    tmp_path: Path, alone: dict[str, Any], models: dict[str, Any], zero3: bool
) -> None:
    together = run(tmp_path / "run", 2, zero3=zero3, **models)

    assert together == numbers(alone)
    assert all(each["perplexity"]["mean"] > 1 for each in together["candidates"])
    assert "accuracy" not in together["samples"][3]["answers"]["policy"]["measures"]
    # Of five models that were read, each of 400 kB; DeepSpeed keeps some flags.
    assert json.loads((tmp_path / "run" / "left.json").read_text()) < 10_000
    assert [sample["prompt"] for sample in together["samples"]] == [
        f"Say backwards: {n}" for n in range(7)
    ]
