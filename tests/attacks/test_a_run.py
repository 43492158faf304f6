"""A whole run on this machine, in a folder full of traps, with tokens in reach of it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from launcher.records import attempts, files
from launcher.records.paths import StagePaths
from launcher.worker import secrets, train
from tests.attacks.canary import Canary
from tests.slurm.shell import LAUNCHER
from tests.unit.command import ROOT

TOKEN = "hf_" + "a1B2" * 8
PASSWORD = "open-sesame-4711"
MODULES = ("torch", "yaml", "click", "msgspec", "submitit", "transformers", "launcher", "json")


def test_modules_beside_the_recipe_are_not_imported_and_no_token_is_left_anywhere(
    canary: Canary, tmp_path: Path
) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    for name in MODULES:
        (desk / f"{name}.py").write_text(canary.python)
    (desk / "sitecustomize.py").write_text(canary.python)
    (desk / "recipe.yaml").write_text(
        f'launcher: 1\nname: mine\nextends: ["{ROOT}/recipes/tiny/sft"]\n'
        "stages: {sft: {train: {max_steps: 1, save_steps: 1}}}\n"
    )
    hidden = tmp_path / "secrets.env"
    hidden.write_text(f"MY_PASSWORD={PASSWORD}\n")
    hidden.chmod(0o600)
    home = tmp_path / "home"
    (home / ".config" / "launcher").mkdir(parents=True)
    hidden.rename(home / ".config" / "launcher" / "secrets.env")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_TOKEN": TOKEN,
        "HOME": str(home),
        "LAUNCHER_CLUSTER": "local",
        "OMP_NUM_THREADS": "1",
    }
    words = (LAUNCHER, "submit", "recipe.yaml", "--yes", "--wait")
    done = subprocess.run(
        ["bash", "-c", 'umask 000; exec "$@"', "-", *words],
        cwd=desk, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not canary.sang
    (run,) = (desk / "runs").iterdir()
    for path in (run, *run.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} {mode:o}"
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            assert PASSWORD.encode() not in content, path
    assert TOKEN not in done.stdout + done.stderr


def test_a_token_in_an_error_is_not_in_what_the_trainer_leaves_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv(secrets.NAMES, "MINE")
    monkeypatch.setenv("MINE", PASSWORD)
    stage = StagePaths(files.private_folder(tmp_path / "sft"))
    path = attempts.failure_path(stage.attempts, "1", 0)
    try:
        raise ValueError(f"401 for Bearer {TOKEN} with {PASSWORD}")
    except ValueError as error:
        train._leave(path, 0, str(error), kind="program")
    (failure,) = attempts.failures(stage.attempts, "1")
    assert failure.message == "401 for Bearer [HF_TOKEN] with [MINE]"
    assert "[HF_TOKEN]" in failure.traceback
    assert TOKEN not in path.read_text() and PASSWORD not in path.read_text()


def test_a_token_that_is_printed_is_not_in_the_log(tmp_path: Path) -> None:
    program = (
        "import logging, os, sys, warnings\n"
        "from launcher.worker import streams; streams.guard()\n"
        "token = os.environ['HF_TOKEN']\n"
        "print('token', token); print('err', token, file=sys.stderr)\n"
        "logging.basicConfig(); logging.warning('log %s', token); warnings.warn(token)\n"
        "raise ValueError(token)\n"
    )
    done = subprocess.run(
        [Path(LAUNCHER).parent / "python", "-c", program],
        env={**os.environ, "HF_TOKEN": TOKEN}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert "[HF_TOKEN]" in done.stdout and done.stderr.count("[HF_TOKEN]") >= 4
    assert TOKEN not in done.stdout + done.stderr
