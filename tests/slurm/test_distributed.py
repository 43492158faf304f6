"""Several processes on several nodes train what one process trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.shell import Shell

TINY_SFT = str(Path(__file__).parents[2] / "recipes" / "tiny" / "sft.yaml")
STEPS = 8
TWO_NODES = ("stages.sft.resources.gpus=2", "stages.sft.resources.nodes=2")


def losses(shell: Shell, *overrides: str) -> list[float]:
    """The loss of each step of the tiny SFT, whose sequences are of unequal length."""
    run = shell.data(
        "submit", TINY_SFT, f"stages.sft.train.max_steps={STEPS}", *overrides, "--new", "--wait"
    )["run"]
    return [row["loss"] for row in shell.metrics(run, "sft") if "loss" in row]


@pytest.fixture(scope="module")
def alone() -> list[float]:
    """Filled by the first test that needs it: the losses of one process."""
    return []


@pytest.mark.parametrize("zero", [0, pytest.param(2, marks=pytest.mark.long), 3])
def test_two_nodes_have_the_losses_of_one_process_at_the_same_global_batch(
    shell: Shell, alone: list[float], zero: int
) -> None:
    if not alone:
        alone.extend(losses(shell, "stages.sft.resources.micro_batch=4"))
    together = losses(shell, *TWO_NODES, f"stages.sft.resources.zero_stage={zero}")
    assert len(alone) == len(together) == STEPS
    assert together == pytest.approx(alone, abs=1e-4)


def test_two_nodes_train_in_bfloat16(shell: Shell) -> None:
    zero = "stages.sft.resources.zero_stage=2"
    run = losses(shell, *TWO_NODES, zero, "stages.sft.dtype=bfloat16")
    assert len(run) == STEPS
    assert run[-1] < run[0] - 0.5
