"""A user's programs as stages of a chain on a real Slurm, and a gate that stops it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.slurm.devcluster import wait_until
from tests.slurm.shell import Shell

MODEL = Path(__file__).parents[2] / "recipes" / "tiny" / "model"
ENDED = ("complete", "failed", "cancelled", "blocked")
TELL = """
import os, sys
names = ("RANK", "WORLD_SIZE", "NODE_RANK", "NNODES")
told = {name: os.environ[name] for name in names if name in os.environ}
who = told.get("RANK", told.get("NODE_RANK", "alone"))
with open(os.path.join(sys.argv[1], f"{who}.json"), "w") as file:
    import json
    json.dump({**told, "host": os.uname().nodename}, file)
if who in ("alone", "0"):
    with open(os.path.join(sys.argv[1], "metrics.json"), "w") as file:
        json.dump({"accuracy": 0.4}, file)
"""


def chain(shell: Shell, gate: float) -> str:
    program = shell.home / "tell it.py"
    program.write_text(TELL)
    tell = json.dumps([sys.executable, str(program), "{out}"])
    path = shell.home / "programs.yaml"
    path.write_text(
        f"""
launcher: 1
name: programs
stages:
  sft: {{method: sft, use: {MODEL}}}
  nodes:
    {{method: command, command: {tell}, inputs: {{m: stage:sft}}, run: node,
     resources: {{gpus: 4, nodes: 2, time: 5m}}}}
  tasks:
    {{method: command, command: {tell}, inputs: {{m: stage:sft}}, run: task,
     resources: {{gpus: 4, nodes: 2, time: 5m}}, needs: [nodes]}}
  once:
    {{method: command, command: {tell}, inputs: {{m: stage:sft}}, needs: [tasks],
     resources: {{gpus: 1, time: 5m}}, gate: {{accuracy: {{min: {gate}}}}}}}
  after:
    {{method: command, command: [test, -d, "{{m}}"], inputs: {{m: stage:sft}}, needs: [once],
     resources: {{gpus: 1, time: 5m}}}}
"""
    )
    return str(path)


def told(shell: Shell, run: str, stage: str) -> dict[str, Any]:
    """Who ran of the stage → what it was told of its place."""
    out = shell.runs / run / "stages" / stage / "out"
    found = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    found.pop("metrics", None)
    return found


def test_programs_run_once_on_each_node_or_gpu_and_a_gate_stops_those_that_wait(
    shell: Shell,
) -> None:
    run: str = shell.data("submit", chain(shell, gate=0.6))["run"]

    def states() -> dict[str, str]:
        return {s["name"]: s["state"] for s in shell.data("status", run)["stages"]}

    wait_until(lambda: states()["once"] in ENDED, "the gated stage to end", 300)
    found = states()
    assert [found[name] for name in ("nodes", "tasks", "once")] == [
        "complete", "complete", "failed",
    ]  # fmt: skip
    nodes = told(shell, run, "nodes")
    assert {each["NODE_RANK"] for each in nodes.values()} == {"0", "1"}
    assert len({each["host"] for each in nodes.values()}) == 2
    tasks = told(shell, run, "tasks")
    assert {each["RANK"] for each in tasks.values()} == {"0", "1", "2", "3"}
    assert {each["WORLD_SIZE"] for each in tasks.values()} == {"4"}
    assert told(shell, run, "once").keys() == {"alone"}
    (attempt,) = shell.attempts(run, "once")
    assert "stages.once.gate: accuracy is 0.4, at least 0.6 asked" in attempt["failure"]["message"]
    assert found["after"] in ("blocked", "cancelled")
    assert not (shell.runs / run / "stages" / "after" / "attempts").exists()
