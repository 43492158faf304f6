"""Who hashes which file of a checkpoint, and what becomes of one that cannot be read."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.records import checkpoints, commits
from launcher.records.checkpoints import SCHEMA_VERSION, Commit, File
from launcher.records.complete import digest
from launcher.run import folder
from launcher.worker.hashing import shares
from tests.unit.running import ON_THIS_MACHINE

SIZES = {
    "model.safetensors": 40,
    "optimizer.pt": 80,
    "trainer_state.json": 1,
    "rng_state_5.pth": 1,
    "rollout_3.safetensors": 9,
    "global_step4/bf16_zero_pp_rank_6_mp_rank_00_optim_states.pt": 70,
    "value_head.safetensors": 30,
}


def test_a_rank_hashes_what_it_wrote_and_rank_0_shares_with_its_node() -> None:
    assert shares(SIZES, world=8, per_node=2) == {
        "optimizer.pt": 0,
        "model.safetensors": 1,
        "value_head.safetensors": 1,
        "trainer_state.json": 1,
        "rng_state_5.pth": 5,
        "rollout_3.safetensors": 3,
        "global_step4/bf16_zero_pp_rank_6_mp_rank_00_optim_states.pt": 6,
    }


def test_one_rank_hashes_all() -> None:
    assert set(shares({"a": 1, "rng_state.pth": 2}, world=1, per_node=1).values()) == {0}


RANK = """
import os, sys
from pathlib import Path
import torch.distributed as dist
from launcher.errors import LauncherError
from launcher.records.paths import RunPaths
from launcher.run import folder
from launcher.worker.checkpoint import resume
from launcher.worker.context import Context

run, rank, event, path, number = sys.argv[1:]
rank = int(rank)
run = RunPaths(Path(run))
dist.init_process_group("gloo", f"file://{run.root}/meet", rank=rank, world_size=2)
plan = folder.load_plan(run)
context = Context(run, plan, plan.stage("sft"), "token", "1", rank, 2, rank, 0.0)

def fails(name, given):
    if name == event and path in str(given[0]):
        raise OSError(int(number), os.strerror(int(number)), str(given[0]))

if path:
    sys.addaudithook(fails)
try:
    print("RESUMES", resume(context))
except LauncherError as error:
    print("ENDS", getattr(error, "failed", None), error.message)
"""


def resumed(root: Path, rank: int, event: str, path: str, number: int) -> list[str]:
    """What two ranks get, one of which meets an error of the disk at `path`."""
    (root / "meet").unlink(missing_ok=True)
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                RANK,
                root,
                str(each),
                event,
                path * (each == rank),
                str(number),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in range(2)
    ]
    return [each.communicate(timeout=120)[0].splitlines()[-1] for each in ranks]


@pytest.mark.parametrize(
    ("rank", "event", "path"),
    [
        (1, "open", "checkpoint-7/rng_state_1.pth"),
        (0, "open", "checkpoint-7/COMMIT.json"),
        (0, "os.scandir", "checkpoint-7/states"),
        (0, "os.listdir", "stages/sft/checkpoints"),
    ],
)
def test_a_disk_that_fails_for_a_moment_ends_the_attempt_on_every_rank_and_costs_no_checkpoint(
    tmp_path: Path, rank: int, event: str, path: str
) -> None:
    run, _ = folder.create(tmp_path / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    saved = run.stage("sft").checkpoints
    for step in (3, 7):
        staged = checkpoints.path_of(commits.begin(saved), step)
        (staged / "states").mkdir(parents=True, mode=0o700)
        names = ("model.safetensors", "rng_state_1.pth", "states/0.pt")
        for name in names:
            (staged / name).write_text(name)
            (staged / name).chmod(0o600)
        parts = tuple(File(name, len(name), digest(staged / name)) for name in names)
        commits.commit(staged, Commit(SCHEMA_VERSION, step, 2, 0, "none", 0.0, parts))
    before = sorted(each.name for each in saved.iterdir())
    for said in resumed(run.root, rank, event, path, errno.ESTALE):
        assert said.startswith("ENDS disk") and "Stale file handle" in said
    assert sorted(each.name for each in saved.iterdir()) == before
