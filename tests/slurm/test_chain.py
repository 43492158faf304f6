"""The main job on a real Slurm: a recipe in, a finished chain out."""

from __future__ import annotations

import json
from pathlib import Path

from tests.slurm.shell import Shell

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = str(RECIPES / "tiny" / "ppo.yaml")
TINY_SFT = str(RECIPES / "tiny" / "sft.yaml")


def test_two_chains_at_once_are_both_complete_and_a_third_submit_rejoins(shell: Shell) -> None:
    first = shell.start("submit", TINY, "--new", "--wait", "--json")
    second = shell.start("submit", TINY, "--new", "--wait", "--json")
    names = set()
    for process in (first, second):
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        names.add(json.loads(out)["data"]["run"])
    assert len(names) == 2
    for name in names:
        status = shell.data("status", name)
        assert status["state"] == "complete"
        assert [s["state"] for s in status["stages"]] == ["complete"] * 4
        assert all(s["attempts"] == 1 for s in status["stages"])
        evaluation = shell.data("report", name)["evaluations"]["eval"]
        assert {c["label"] for c in evaluation["candidates"]} == {"base", "sft", "ppo"}
    again = shell.data("submit", TINY)
    assert again["run"] in names
    assert {stage["action"] for stage in again["stages"]} == {"complete"}
    assert {run["run"] for run in shell.data("list")} == names


def test_stages_wait_for_each_other_and_cancel_leaves_another_run_alone(shell: Shell) -> None:
    shell.runs.mkdir(mode=0o700)
    slow = "stages.sft.train.max_steps=100000"
    one = shell.data("submit", TINY, slow, "--new")
    other = shell.data("submit", TINY, slow, "--new")
    waiting = shell.data("status", one["run"])["stages"][1:]
    assert [stage["reason"] for stage in waiting] == ["waits for the stage before it"] * 3
    cancelled = shell.data("cancel", one["run"])
    assert cancelled["stages"] == ["sft", "rm", "ppo", "eval"]
    assert {s["state"] for s in shell.data("status", one["run"])["stages"]} == {"cancelled"}
    assert {s["state"] for s in shell.data("status", other["run"])["stages"]} <= {
        "pending",
        "running",
    }
    shell.run("cancel", other["run"])
    refused = shell.start("submit", TINY, slow)
    assert f"launcher resume {other['run']}" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 2


def test_a_failed_stage_says_why_and_the_same_command_goes_on(shell: Shell) -> None:
    good = (RECIPES / "tiny" / "data" / "preference.jsonl").read_text()
    data = shell.home / "rows.jsonl"
    # Nothing that a login node could see: only the tokenizer knows how long a prompt is.
    data.write_text(
        good.replace('"role": "user", "content": "', '"role": "user", "content": "' + "on " * 99)
    )
    words = ("submit", TINY, f"stages.rm.data.path={data}", "--wait")
    failed = shell.start(*words)
    _, err = failed.communicate(timeout=300)
    assert failed.returncode == 5
    assert "every prompt is longer than 64 tokens" in err and "data.max_prompt_tokens" in err
    states = [s["state"] for s in shell.data("status")["stages"]]
    assert states == ["complete", "failed", "blocked", "blocked"]
    data.write_text(good)
    shell.run(*words)
    stages = shell.data("status")["stages"]
    assert [s["state"] for s in stages] == ["complete"] * 4
    assert [s["attempts"] for s in stages] == [1, 2, 1, 1]


def test_logs_follow_a_stage_until_it_ends(shell: Shell) -> None:
    shell.run("submit", TINY_SFT)
    whole = shell.run("logs", "-f", "sft")
    assert "train_runtime" in whole
    assert len(shell.run("logs", "--tail", "2", "sft").splitlines()) == 2
    assert shell.data("status")["state"] == "complete"
