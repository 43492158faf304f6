"""A chain of programs on a cluster: stages that last a second, and do as files beside them say."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.slurm.shell import Shell

PROGRAM = """\
name=$1
echo begun >> "$name.starts"
while [ -e "$name.wait" ]; do sleep 0.2; done
[ ! -e "$name.fail" ] || exit 7
"""
NAMES = ("first", "second", "third")


def chain(shell: Shell, name: str = "programs") -> str:
    """A recipe of three stages, each of which needs the one before it.

    `hold(shell, stage)` makes one wait, the file STAGE.fail fail.
    """
    program = shell.home / "program.sh"
    program.write_text(f"cd {shlex.quote(str(shell.home))} || exit 9\n{PROGRAM}")
    before = dict(zip(NAMES, ("", *NAMES), strict=False))
    stages = "".join(
        f"  {stage}:\n    method: command\n"
        f"    command: [bash, {json.dumps(str(program))}, {stage}]\n"
        + (f"    needs: [{needs}]\n" if needs else "")
        for stage, needs in before.items()
    )
    path = shell.home / f"{name}.yaml"
    path.write_text(
        f"launcher: 1\nname: {name}\nresources: {{gpus: 1, time: 15m}}\nstages:\n{stages}"
    )
    return str(path)


def hold(shell: Shell, stage: str) -> Path:
    """Let the stage's program wait until the file that is returned is removed."""
    path = shell.home / f"{stage}.wait"
    path.touch()
    return path


def starts(shell: Shell, stage: str) -> int:
    """How often the stage's program was started."""
    path = shell.home / f"{stage}.starts"
    return len(path.read_text().splitlines()) if path.exists() else 0
