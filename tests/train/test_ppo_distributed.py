"""PPO on two processes: DDP, ZeRO-2 and ZeRO-3 do what one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from launcher.worker.vllm.address import free_port

HERE = Path(__file__).parent
TRAIN: dict[str, Any] = {
    "max_steps": 6,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-3,
    "top_k": 1,  # the likeliest token always: every process samples alike
    "shuffle_dataset": False,
}


def run(folder: Path, processes: int, **settings: Any) -> dict[str, list[float]]:
    """Train in `processes` processes; what process 0 logged."""
    folder.mkdir()
    train = TRAIN | settings.pop("train", {})
    train["per_device_train_batch_size"] = 8 // processes
    (folder / "settings.json").write_text(json.dumps({"zero": 0, **settings, "train": train}))
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port("127.0.0.1")),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    alone = processes == 1 and not settings.get("zero")
    ranks = []
    for rank in range(processes):
        environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        if alone:
            for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
                del environment[name]
        with (folder / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, str(HERE / "ppo_process.py"), str(folder)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        # Long, since the first ZeRO run on a machine compiles DeepSpeed's operator for CPUs.
        codes = [rank.wait(timeout=500) for rank in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert codes == [0] * processes, (folder / "rank0.log").read_text()[-3000:]
    report: dict[str, list[float]] = json.loads((folder / "losses.json").read_text())
    return report


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return run(tmp_path_factory.mktemp("alone") / "run", 1)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "zero",
    [0, pytest.param(1, marks=LONG), pytest.param(2, marks=LONG), pytest.param(3, marks=LONG)],
)
def test_two_processes_do_what_one_does(
    tmp_path: Path, alone: dict[str, list[float]], zero: int
) -> None:
    together = run(tmp_path / "run", 2, zero=zero)

    for key, expected in alone.items():
        assert together[key] == pytest.approx(expected, abs=1e-4), key
    final = tmp_path / "run" / "final"
    _, report = AutoModelForCausalLM.from_pretrained(final, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert load_file(final / "value_head.safetensors")["weight"].abs().sum() > 0


@pytest.mark.long
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["head", "value_model", "lora", "lora+value_model"])
def test_two_processes_resume_in_the_middle_of_a_rollout(
    tmp_path: Path, zero: int, kind: str
) -> None:
    settings: dict[str, Any] = {
        "zero": zero,
        "value_model": "value_model" in kind,
        "lora": "lora" in kind,
        "train": {
            "save_strategy": "steps",
            "save_steps": 3,
            "max_steps": 6,
            "top_k": 0,  # each rank draws from its own random state
            "num_mini_batches": 2,  # a stop in the second pass, after the first mini-batch
            "kl_controller": "adaptive",
            "kl_target": 1.0,
            "kl_horizon": 100,
        },
    }
    whole = run(tmp_path / "whole", 2, **settings)
    checkpoint = str(tmp_path / "whole" / "run" / "checkpoint-3")
    resumed = run(tmp_path / "resumed", 2, resume=checkpoint, after=3, **settings)

    assert resumed["loss"] == whole["loss"][-3:]
    assert resumed["reward"] == whole["reward"][-1:]
    files = sorted((tmp_path / "whole" / "final").glob("*.safetensors"))
    assert len(files) == 2  # the policy or its adapter, and the value function
    for file in files:
        again = load_file(tmp_path / "resumed" / "final" / file.name)
        for name, tensor in load_file(file).items():
            assert torch.equal(tensor, again[name]), (file.name, name)


@pytest.mark.long
def test_layers_that_are_gathered_one_by_one_for_sampling_give_the_same(tmp_path: Path) -> None:
    train = {"top_k": 0, "max_steps": 2, "ds3_gather_for_generation": False}

    report = run(tmp_path / "run", 2, zero=3, train=train)

    assert len(report["loss"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_two_processes_train_in_bfloat16(tmp_path: Path, zero: int) -> None:
    report = run(tmp_path / "run", 2, zero=zero, train={"bf16": True, "max_steps": 2})

    assert len(report["loss"]) == 2
