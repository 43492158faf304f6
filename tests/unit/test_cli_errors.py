"""What is wrong is one sentence on stderr with its place and way out, and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.command import ROOT, launcher

TYPO = """\
launcher: 1
name: mine
extends: [method/sft, size/0.5b]
stages:
  sft:
    train:
      learning_rte: 1e-5
"""
MISFIT = """\
name: small
gpus:
  a100_40gb: {memory_gib: 39.4}
partitions:
  - name: one
    groups: [{nodes: 1, cpus: 8, memory_gib: 64, gpu: a100_40gb, gpus: 1}]
"""


@dataclass(frozen=True)
class Case:
    words: Sequence[str | Path]
    code: int
    said: Sequence[str]


CASES = {
    "a key that is misspelt on the command line": Case(
        ("submit", ROOT / "recipes/sft_7b.yaml", "stages.sft.train.learning_rte=1"),
        2,
        ("stages.sft.train.learning_rte", "did you mean 'learning_rate'?"),
    ),
    "a key that is misspelt in a file": Case(
        ("submit", "typo.yaml", "--cluster", "mixed"),
        2,
        ("typo.yaml:7:7 stages.sft.train.learning_rte", "did you mean 'learning_rate'?"),
    ),
    "a recipe that is not there": Case(("plan", "ppo_8b", "--cluster", "mixed"), 2, ("ppo_7b",)),
    "a stage that fits nowhere": Case(
        ("submit", "sft_72b", "--cluster", "small.yaml", "--yes"), 3, ("stages.sft", "GiB")
    ),
    "a cluster that is not there": Case(
        ("plan", "ppo_7b", "--cluster", "mixd"), 2, ("did you mean 'mixed'?",)
    ),
    "a command that is misspelt": Case(("statu",), 2, ("Did you mean `status`?",)),
    "an option that is misspelt": Case(("status", "--jsn"), 2, ("--jsn", "--json")),
    "a plan that is none": Case(("submit", "no.json"), 2, ("no.json", "No such file")),
    "a plan that is no text": Case(("plan", "binary.json"), 2, ("binary.json: not UTF-8",)),
    "a run that is not there": Case(("status", "nothing"), 2, ("there is no run nothing",)),
    "a folder that cannot be written": Case(
        ("plan", "sft_0.5b", "--cluster", "mixed", "-o", "nowhere/plan.json"),
        1,
        ("nowhere/plan.json: No such file or directory",),
    ),
    "a runs folder that Slurm cannot log to": Case(
        ("submit", "sft_0.5b", "--cluster", "local", "--runs", "a%b", "--yes"),
        2,
        ("jobs cannot work below",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_on_stderr_with_its_exit_code_and_nothing_is_written(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "typo.yaml").write_text(TYPO)
    (tmp_path / "small.yaml").write_text(MISFIT)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    before = sorted(tmp_path.iterdir())
    case = CASES[name]
    ended = launcher(*case.words, folder=tmp_path, code=case.code)
    assert all(words in ended.err for words in case.said), ended.err
    assert "\x1b" not in ended.err
    assert sorted(tmp_path.iterdir()) == before


def test_without_slurm_what_needs_it_exits_with_4(tmp_path: Path) -> None:
    ended = launcher("cluster", "discover", folder=tmp_path, env={"PATH": "/nonexistent"}, code=4)
    assert "scontrol is not on this machine" in ended.err


def test_a_slurm_that_knows_no_cluster_names_the_way_out(tmp_path: Path) -> None:
    sbatch, scontrol = tmp_path / "sbatch", tmp_path / "scontrol"
    for program in (sbatch, scontrol):
        program.write_text(
            "#!/bin/sh\necho 'scontrol: fatal: Could not establish a configuration source' >&2\n"
            "exit 1\n"
        )
        program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = launcher("plan", "sft_0.5b", folder=tmp_path, env=env, code=4)
    assert "--cluster local" in ended.err
