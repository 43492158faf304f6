"""What a login node installs: the wheel, with the recipes, profiles and ZeRO configurations."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.command import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was unpacked to."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    build += ["--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("name", ["recipes", "slurm/clusters", "deepspeed_configs"])
def test_the_wheel_carries_every_shipped_file(name: str, installed: Path) -> None:
    def files(top: Path) -> set[str]:
        kept = {path for suffix in ("yaml", "json", "jsonl") for path in top.rglob(f"*.{suffix}")}
        return {str(path.relative_to(top)) for path in kept}

    carried = files(installed / "launcher" / "share" / name)
    assert carried and carried == files(ROOT / name)


def test_a_shipped_recipe_is_planned_on_a_shipped_profile_from_the_wheel_alone(
    installed: Path, tmp_path: Path
) -> None:
    program = (
        "import launcher, sys; from launcher.cli.main import main;"
        f"assert launcher.__file__.startswith({str(installed)!r}), launcher.__file__; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", "ppo_7b", "--cluster", "mixed"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[3:7]] == [
        "sft",
        "rm",
        "ppo",
        "eval",
    ]
