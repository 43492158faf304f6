"""What an attack would leave: a file that only it makes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from launcher.plan.types import Plan
from launcher.records.paths import RunPaths
from launcher.run.request import job_request
from launcher.scheduler import sbatch


@dataclass(frozen=True)
class Canary:
    """A file, and the ways to make it."""

    path: Path

    @property
    def shell(self) -> tuple[str, ...]:
        """What makes it where a shell reads it: bare, within quotes, and as lines of their own,
        one of them for sbatch."""
        touch = f"touch {self.path}"
        return (
            f"x;{touch};$({touch})`{touch}`&{touch}|{touch}",
            f"x';{touch};'",
            f"x\n#SBATCH --export=ALL\n{touch}\n",
        )

    @property
    def python(self) -> str:
        """A module that makes it when it is imported."""
        return f"import pathlib\npathlib.Path({str(self.path)!r}).touch()\n"

    @property
    def pickle(self) -> bytes:
        """A pickle that makes it when it is read: `os.system('touch …')`."""
        return b"cposix\nsystem\n(S'touch " + str(self.path).encode() + b"'\ntR."

    @property
    def sang(self) -> bool:
        return self.path.exists()


def proof(canary: Canary) -> None:
    """That the canary would sing: each way does make the file."""
    import pickle

    for way, quote in zip(canary.shell, ("", "'", ""), strict=True):
        subprocess.run(["bash", "-c", f"true {quote}{way}{quote}"], check=False)
        assert canary.sang, way
        canary.path.unlink()
    subprocess.run([sys.executable, "-c", canary.python], check=True)
    assert canary.sang
    canary.path.unlink()
    pickle.loads(canary.pickle)
    assert canary.sang
    canary.path.unlink()


def run_scripts(plan: Plan, folder: Path) -> str:
    """Run the batch script of each stage as a node would, with `srun` as a word that is written
    down. Returns all scripts."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "srun").write_text("#!/bin/bash\n")
    (tools / "srun").chmod(0o755)
    run = RunPaths(folder / "runs" / f"{plan.name}-00000000")
    texts = []
    for stage in plan.stages:
        if stage.runs:
            text = sbatch.text(job_request(run, plan, stage.name, "f00d"))
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            subprocess.run(
                ["bash", "-s"],
                input=text,
                text=True,
                cwd=folder,
                env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder)},
                capture_output=True,
                timeout=30,
            )
            texts.append(text)
    return "\n".join(texts)
