"""The batch script says what it was given, and bash expands none of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.records.paths import RunPaths
from launcher.run.request import job_request
from launcher.scheduler import sbatch
from tests.unit.planning import LAPTOP, MIXED
from tests.unit.running import ALLOCATION, ON_SLURM, request

NASTY = {
    "SPACES": "two  words ",
    "QUOTES": """it's "so" """,
    "COMMAND": "$(touch hacked) `touch hacked`",
    "VARIABLE": "$HOME ${PATH} $$",
    "LINES": "one\n#SBATCH --nodes=64\ntouch hacked\n",
    "MARKS": "a;b&c|d>hacked<e*?[x]{1,2}~!#\\",
    "EMPTY": "",
    "LETTERS": "ünïcode ✓",
    "DASH": "-n --help",
}
FOLDER = """runs of 'ada' & "bob" $(touch hacked) `x` ;#!*"""


def bash(lines: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True, text=True, cwd=folder, check=True, timeout=30,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "HOME": "/home/ada"},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_bash_hands_on_every_value_as_it_was_given(tmp_path: Path) -> None:
    asked = request(run=tmp_path / FOLDER, env=NASTY)
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    lines = [*sbatch.setup(asked), f"{sys.executable} -S -c '{show}'"]
    seen = json.loads(bash(lines, tmp_path))
    assert {name: seen[name] for name in NASTY} == NASTY
    assert seen["PYTHONPATH"] == str(tmp_path / FOLDER / "code")
    assert list(tmp_path.iterdir()) == []


def test_the_whole_script_runs_srun_once_with_the_words_that_were_meant(tmp_path: Path) -> None:
    asked = request(run=tmp_path / FOLDER, env=NASTY, python="/opt/my env/python")
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@" END\n')
    srun.chmod(0o755)
    words = bash([sbatch.text(asked)], tmp_path).splitlines()
    run = str(tmp_path / FOLDER)
    assert words == [
        "--unbuffered", "--output", f"{run}/stages/sft/logs/%j_%t_log.out",
        "--export=ALL", "--cpus-per-task=8", "--kill-on-bad-exit=1",
        "/opt/my env/python", "-u", "-m", "launcher.scheduler.entry", run, "sft", "f00d", "END",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [srun]


@pytest.mark.parametrize("name", NASTY)
def test_bash_reads_the_script_with_each_value(name: str, tmp_path: Path) -> None:
    text = sbatch.text(request(run=tmp_path / FOLDER, env={name: NASTY[name]}))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=30)


def test_no_value_adds_an_option_for_sbatch() -> None:
    """sbatch reads options up to the first line that is neither blank nor a comment."""
    text = sbatch.text(request(env=NASTY))
    head = text.split("\numask 077\n")[0]
    assert "--nodes=64" not in head
    assert head.count("#SBATCH --nodes=") == 1
    rest = text.splitlines()[len(head.splitlines()) :]
    assert rest[0] == "umask 077"


def test_the_profiles_own_lines_come_first_and_the_stages_variables_win() -> None:
    cluster = replace(MIXED, setup=("module load cuda",), env={"A": "site", "B": "site"})
    lines = sbatch.setup(request(cluster=cluster, env={"A": "stage"}))
    assert lines[:2] == ["module load cuda", "umask 077"]
    assert lines[2:4] == ["export A=stage", "export B=site"]


def test_only_named_variables_leave_the_submitting_shell() -> None:
    line = next(x for x in sbatch.text(request()).splitlines() if x.startswith("#SBATCH --export"))
    names = line.partition("=")[2].split(",")
    assert "HF_TOKEN" not in names and "ALL" not in names
    assert "PATH" in names


@pytest.mark.parametrize(
    ("gpu_request", "typed", "line"),
    [
        ("gres", True, "#SBATCH --gres=gpu:h100:8"),
        ("gres", False, "#SBATCH --gres=gpu:8"),
        ("gpus-per-node", True, "#SBATCH --gpus-per-node=h100:8"),
        ("gpus-per-node", False, "#SBATCH --gpus-per-node=8"),
    ],
)
def test_gpus_are_asked_for_as_the_profile_says(gpu_request: str, typed: bool, line: str) -> None:
    cluster = replace(MIXED, gpu_request=gpu_request, typed=typed)  # type: ignore[arg-type]
    text = sbatch.text(request(cluster=cluster))
    asked = [x for x in text.splitlines() if x.startswith(("#SBATCH --gres", "#SBATCH --gpus"))]
    assert asked == [line]


def test_a_stage_on_cpus_asks_for_no_gpu() -> None:
    allocation = replace(ALLOCATION, partition="local", gpu=None, gpu_memory_gib=None, nodes=1)
    text = sbatch.text(request(cluster=LAPTOP, allocation=allocation))
    assert "gpu" not in text


def test_the_partitions_account_and_qos_go_before_the_clusters() -> None:
    eighty = replace(MIXED.partition("eighty"), account="lab-h100", qos="long")
    cluster = replace(MIXED, partitions=(eighty,), account="lab", qos="normal")
    text = sbatch.text(request(cluster=cluster))
    assert "#SBATCH --account=lab-h100\n" in text and "#SBATCH --qos=long\n" in text


def test_a_job_is_warned_as_long_before_its_end_as_the_plan_says() -> None:
    text = sbatch.text(request(allocation=replace(ALLOCATION, signal_lead_s=450)))
    assert "#SBATCH --signal=USR2@450\n" in text


def test_a_job_waits_for_good_ends_and_for_the_end_of_the_one_whose_place_it_takes() -> None:
    text = sbatch.text(request(dependencies=("4", "5"), after=("3",)))
    assert "#SBATCH --dependency=afterok:4:5,afterany:3\n" in text
    assert "--dependency" not in sbatch.text(request())


def script(tmp_path: Path, srun: str) -> tuple[list[str], Path]:
    """The command of a whole script whose srun is `srun`, and where its python writes its words."""
    heard = tmp_path / "heard"
    for name, text in {
        "srun": srun,
        "python it": f'printf "%s\\n" "$@" > {heard}; exit 3',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    python = str(tmp_path / "python it")
    asked = request(run=tmp_path / FOLDER, python=python, advance=True)
    (tmp_path / "script").write_text(sbatch.text(asked))
    return ["bash", str(tmp_path / "script")], heard


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "41"}


@pytest.mark.parametrize("code", [1, 85, 137])
def test_a_script_whose_program_failed_calls_advance_and_keeps_the_exit_code(
    code: int, tmp_path: Path
) -> None:
    command, heard = script(tmp_path, f"exit {code}")
    done = subprocess.run(command, env=environment(tmp_path), timeout=30)
    assert done.returncode == code
    assert heard.read_text().splitlines() == [
        "-m", "launcher.cli.main", "advance", str(tmp_path / FOLDER), "--ended", "41",
    ]  # fmt: skip


def test_a_script_whose_program_ended_well_calls_nobody(tmp_path: Path) -> None:
    command, heard = script(tmp_path, "exit 0")
    assert subprocess.run(command, env=environment(tmp_path), timeout=30).returncode == 0
    assert not heard.exists()


def test_a_script_that_is_told_to_end_calls_advance_too(tmp_path: Path) -> None:
    command, heard = script(tmp_path, f"touch {tmp_path / 'runs'}; exec sleep 5")
    process = subprocess.Popen(command, env=environment(tmp_path))
    while not (tmp_path / "runs").exists():
        time.sleep(0.01)
    # Bash itself may not be done with the start of its program.
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert "advance" in heard.read_text()


def test_nodes_that_do_not_reach_slurm_are_not_asked_to() -> None:
    plan = replace(ON_SLURM, cluster=replace(ON_SLURM.cluster, nodes_may_submit=False))
    run = RunPaths(Path("/scratch/ada/runs/demo-0a1b2c3d"))
    assert "trap" in sbatch.text(job_request(run, ON_SLURM, "sft", "f00d"))
    assert "trap" not in sbatch.text(job_request(run, plan, "sft", "f00d"))
