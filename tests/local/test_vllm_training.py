"""GRPO on this machine with a server of its own, of which TRL's real client asks completions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.local.machine import LOAD_S, LocalShell
from tests.slurm.devcluster import wait_until
from tests.vllm_stand_in import environment
from tests.vllm_stand_in.environment import GRPO, SERVED


@pytest.fixture
def served(shell: LocalShell, tmp_path: Path) -> LocalShell:
    """Jobs run in an environment in which `vllm` is the stand-in."""
    interpreter = environment.python(tmp_path / "env")
    # An answer may take as long as a loaded machine makes it; what is tested hangs for ever.
    env = {"LAUNCHER_VLLM_ANSWER_S": "30", "http_proxy": "http://127.0.0.1:9"}
    profile = environment.local_profile(tmp_path / "here.yaml", interpreter, env)
    shell.env["LAUNCHER_CLUSTER"] = str(profile)
    return shell


def failed(shell: LocalShell, log: Path, *overrides: str) -> str:
    """Why the run failed, of which nothing is left."""
    words = (GRPO, *SERVED, f"stages.grpo.env.STAND_IN_LOG={log}", *overrides)
    process = shell.start("submit", *words, "--wait")
    # What may pass is tried again, three times.
    _, err = process.communicate(timeout=2 * LOAD_S)
    assert process.returncode == 5, err
    run = shell.data("list")[0]["run"]
    stage = shell.stage(run, "grpo")
    assert stage["state"] == "failed"
    wait_until(lambda: not shell.processes(run), "every process to end", 30)
    assert environment.processes(log) == []
    assert shell.attempts(run, "grpo")[0]["outcome"] == "error"
    reason: str = stage["reason"]
    return reason


def test_a_training_whose_server_dies_ends_with_the_reason(
    served: LocalShell, tmp_path: Path
) -> None:
    reason = failed(served, tmp_path / "log.jsonl", "stages.grpo.env.STAND_IN_DIE_AFTER=1")
    assert reason.startswith("the vLLM server ended while it served (exit code 3)")
    assert "launcher logs grpo --rank 1" in reason


def test_a_stage_whose_server_does_not_start_ends_before_a_trainer_starts(
    served: LocalShell, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    reason = failed(
        served,
        log,
        "stages.grpo.env.STAND_IN_START_S=1000",
        "stages.grpo.train.vllm_server_timeout=3",
    )
    assert reason.startswith("the vLLM server did not answer within 3 s")
    run = served.data("list")[0]["run"]
    assert not (served.runs / run / "stages" / "grpo" / "args.yaml").exists()


@pytest.mark.long
def test_a_training_whose_server_never_answers_a_rollout_ends_with_the_reason(
    served: LocalShell, tmp_path: Path
) -> None:
    """The server is healthy, so that only the trainer can tell."""
    reason = failed(served, tmp_path / "log.jsonl", "stages.grpo.env.STAND_IN_HANG_AFTER=1")
    assert "the vLLM server has stalled: no answer to /v1/completions within 30 s" in reason


@pytest.mark.long
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_two_trainers_share_a_server_that_has_their_weights(
    served: LocalShell, tmp_path: Path, zero: int
) -> None:
    log = tmp_path / "log.jsonl"
    run = served.data(
        "submit",
        GRPO,
        *SERVED,
        "stages.grpo.resources.gpus=2",
        f"stages.grpo.resources.zero_stage={zero}",
        "stages.grpo.train.max_steps=3",
        "stages.grpo.env.STAND_IN_MODEL=1",
        f"stages.grpo.env.STAND_IN_LOG={log}",
        "--wait",
    )["run"]
    assert served.outcomes(run, "grpo") == ["complete"]
    # One token drawn by the server has the probability that the trainers give it.
    key = "sampling/sampling_logp_difference/mean"
    differences = [row[key] for row in served.metrics(run, "grpo") if key in row]
    assert len(differences) == 3
    assert max(differences) < 1e-4
    # Those of each step, and the rollout is asked for once for both.
    assert [each["event"] for each in environment.events(log)[2:]] == ["weights", "completions"] * 3
    wait_until(lambda: not served.processes(run), "every process to end", 30)
    assert environment.processes(log) == []
    given = yaml.safe_load((served.runs / run / "stages" / "grpo" / "args.yaml").read_text())
    (started,) = environment.events(log, "start")
    port = started["argv"][started["argv"].index("--port") + 1]
    assert given["vllm_server_base_url"] == f"http://127.0.0.1:{port}"
