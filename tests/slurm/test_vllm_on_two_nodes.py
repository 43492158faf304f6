"""GRPO whose vLLM server has a node of its own, on the real Slurm, through a stop and a requeue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.devcluster import DevCluster, wait_until
from tests.slurm.shell import Shell
from tests.vllm_stand_in import environment
from tests.vllm_stand_in.environment import GRPO, SERVED

LOAD_S = 240
STEPS = 16


@pytest.fixture
def served(shell: Shell, tmp_path: Path) -> Shell:
    """Nodes of one GPU, and jobs in an environment in which `vllm` is the stand-in."""
    interpreter = environment.python(tmp_path / "env")
    profile = tmp_path / "dev.yaml"
    profile.write_text(
        f"""
name: dev
device: cpu
interconnect: none
python: {json.dumps(str(interpreter))}
gpus: {{a100_40gb: {{memory_gib: 39.4, price: 1.0}}}}
partitions:
  - name: a100
    max_time_minutes: 600
    groups: [{{nodes: 2, cpus: 8, memory_gib: 64, gpu: a100_40gb, gpus: 1}}]
"""
    )
    shell.env["LAUNCHER_CLUSTER"] = str(profile)
    return shell


@pytest.mark.long
def test_a_server_on_its_own_node_serves_each_start_of_the_job_and_ends_with_it(
    served: Shell, dev_cluster: DevCluster, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    run = served.data(
        "submit",
        GRPO,
        *SERVED,
        f"stages.grpo.train.max_steps={STEPS}",
        "stages.grpo.train.save_steps=100000",
        "stages.grpo.train.max_completion_length=8",
        "stages.grpo.env.STAND_IN_MODEL=1",
        f"stages.grpo.env.STAND_IN_LOG={log}",
    )["run"]

    def stage() -> dict[str, Any]:
        found: dict[str, Any] = served.data("status", run)["stages"][0]
        assert found["state"] in ("pending", "running", "complete"), found
        return found

    def steps() -> int:
        now = stage()["progress"] or {"phase": "", "step": 0}
        return int(now["step"]) if now["phase"] == "train" else 0

    wait_until(lambda: steps() >= 2, "some steps", LOAD_S)
    job = stage()["job_id"]
    assert dev_cluster.show(job)["NumNodes"] == "2"
    # What --signal=USR2@seconds sends to every task, the server's among them.
    dev_cluster.run("scancel", "--signal=USR2", job)
    wait_until(lambda: stage()["state"] == "complete", "the stage to be complete", LOAD_S)
    assert served.outcomes(run, "grpo") == ["stopped", "complete"]
    receipts = served.attempts(run, "grpo")
    assert [(each["job_id"], each["restarts"]) for each in receipts] == [(job, 0), (job, 1)]
    assert {each["processes"] for each in receipts} == {1}
    # The end of the training is the end of the job: nobody waits for the server.
    dev_cluster.wait_for(job, "COMPLETED")
    assert environment.processes(log) == []

    started = environment.events(log, "start")
    assert len(started) == 2
    ports = [each["argv"][each["argv"].index("--port") + 1] for each in started]
    assert len(set(ports)) == 2
    rows = [row for row in served.metrics(run, "grpo") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    differences = [row["sampling/sampling_logp_difference/mean"] for row in rows]
    assert max(differences) < 1e-4
