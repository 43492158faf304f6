"""The same on a real Slurm: what its controller keeps, and jobs of somebody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.canary import Canary
from tests.slurm.devcluster import DevCluster, start, stop
from tests.slurm.shell import Shell
from tests.unit.command import ROOT

TOKEN = "hf_" + "a1B2" * 8
PASSWORD = "open-sesame-4711"
NOBODY = "65534"
TINY_SFT = str(ROOT / "recipes" / "tiny" / "sft.yaml")


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    state = tmp_path_factory.mktemp("slurm")
    try:
        yield start(state)
    finally:
        stop(state)


def test_a_token_and_a_command_in_the_queue_and_another_users_job_of_the_same_tag(
    cluster: DevCluster, canary: Canary, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shell = Shell(cluster, home)
    shell.env |= {"HF_TOKEN": TOKEN, "WANDB_API_KEY": PASSWORD, "MY_PASSWORD": PASSWORD}
    for index, way in enumerate(canary.shell[:2]):
        shell.env[f"FROM_SHELL_{index}"] = way
    words = [f"stages.sft.env.FROM_RECIPE={json.dumps(canary.shell[0])}"]
    words.append("stages.sft.train.max_steps=1000000")
    run = shell.data("submit", TINY_SFT, *words, "--yes")["run"]
    job = shell.data("status", run)["stages"][0]["job_id"]
    shown = cluster.show(job)

    # What the controller keeps, and what was sent to it.
    places = [cluster.state, home]
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert TOKEN.encode() not in content, path
                assert PASSWORD.encode() not in content, path
    assert TOKEN not in cluster.run("scontrol", "show", "job", "-dd", job)

    # Another user's job with this very tag.
    tag = shown["Comment"]
    assert tag.startswith(f"launcher:{run}:sft:")
    script = cluster.state / "theirs.sh"
    script.write_text("#!/bin/bash\nsleep 600\n")
    script.chmod(0o755)
    words = ["--chdir=/", "--output=/dev/null", f"--comment={tag}", f"--uid={NOBODY}", "--hold"]
    theirs = cluster.run("sbatch", "--parsable", *words, script).strip()
    assert int(theirs) > int(job)
    assert shell.data("status", run)["stages"][0]["job_id"] == job
    assert shell.data("cancel", run)["stages"] == ["sft"]
    cluster.wait_for(job, "CANCELLED")
    assert cluster.show(theirs)["JobState"] == "PENDING"
    assert not canary.sang
    cluster.run("scancel", theirs)
