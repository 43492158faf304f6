"""What an attempt measured is in its receipt however it ended."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from tests.local.machine import ENDLESS, TINY_SFT, LocalShell
from tests.slurm.devcluster import wait_until

MIB = 2**20


def receipt(shell: LocalShell, run: str) -> dict[str, Any]:
    wait_until(lambda: bool(shell.attempts(run)[0]["outcome"]), "the receipt", 60)
    return shell.attempts(run)[0]


def test_a_stopped_training_leaves_peaks_and_times_in_receipt_and_ledger(
    shell: LocalShell,
) -> None:
    shell.env["LAUNCHER_LEDGER"] = str(shell.home / "ledger")
    run = shell.data("submit", TINY_SFT, ENDLESS)["run"]
    shell.wait_for_steps(run, 3)
    shell.run("cancel", run)
    found = receipt(shell, run)
    assert found["outcome"] == "stopped"
    phases = found["measured"]["phases"]
    assert {"load", "data", "update", "optimizer step", "save", "whole step"} <= set(phases)
    peaks = [phase["peak_bytes"]["host"] for name, phase in phases.items() if name != "whole step"]
    assert all(100 * MIB < peak <= found["peak_bytes"]["host"] for peak in peaks)
    assert phases["whole step"]["count"] >= 3
    assert 0 < phases["update"]["median_s"] <= phases["whole step"]["longest_s"]
    assert found["measured"]["tokens"] > 0
    assert found["measured"]["versions"]["trl"]
    own = shell.home / "ledger" / f"u{os.getuid()}"
    wait_until(lambda: bool(list(own.glob("*.json"))), "the ledger", 20)
    (shared,) = own.glob("*.json")
    assert json.loads(shared.read_text())["measured"] == found["peak_bytes"]["host"]


def test_a_training_that_fails_on_the_way_leaves_what_it_died_at(shell: LocalShell) -> None:
    bad = shell.home / "score.py"
    bad.write_text("def score(prompts, completions, **_):\n    raise MemoryError\n")
    recipe = shell.home / "own.yaml"
    tiny = TINY_SFT.replace("sft.yaml", "ppo.yaml")
    recipe.write_text(
        f"launcher: 1\nname: own\nextends: ['{tiny}']\n"
        "stages: {eval: {scores: {mine: './score.py:score'}}}\n"
    )
    shell.run("submit", str(recipe), "--wait", "--yes", code=5)
    run = shell.data("list")[0]["run"]
    found = shell.attempts(run, "eval")[0]
    assert found["outcome"] == "error"
    assert found["measured"]["out_of_memory"]
    assert found["measured"]["last_phase"] == "compare"
    assert {"load", "generate", "reward"} <= set(found["measured"]["phases"])
    assert found["measured"]["phases"]["compare"]["peak_bytes"]["host"] > 100 * MIB


def test_of_a_trainer_that_was_killed_the_supervisor_saw_the_peak(shell: LocalShell) -> None:
    run = shell.data("submit", TINY_SFT, ENDLESS)["run"]
    shell.wait_for_steps(run, 2)
    for pid in shell.processes(run, "launcher.worker.train"):
        os.kill(pid, signal.SIGKILL)
    found = receipt(shell, run)
    assert found["outcome"] == "killed"
    assert found["peak_bytes"]["host"] > 100 * MIB
