"""An environment in which `vllm` is the stand-in, and profiles that name its Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GRPO = str(HERE.parents[1] / "recipes" / "tiny" / "grpo.yaml")
SERVED = (
    "stages.eval=null",
    "stages.grpo.train.use_vllm=true",
    "stages.grpo.train.vllm_mode=server",
    # A wait for a server that stands still is as long as the test.
    "stages.grpo.train.vllm_server_timeout=60",
)


def python(folder: Path) -> Path:
    """The Python of a new environment in `folder`: this one's packages, and the stand-in."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    theirs = sysconfig.get_path("purelib")
    (own / "stand_in.pth").write_text(f"import site; site.addsitedir({theirs!r})\n{HERE}\n")
    described = own / "vllm-0.30.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0\n")
    (described / "top_level.txt").write_text("vllm\n")
    # The worker compiles with the ninja beside its Python: another version builds all anew.
    (folder / "bin" / "ninja").symlink_to(Path(sys.executable).parent / "ninja")
    return folder / "bin" / "python"


def local_profile(path: Path, interpreter: Path, env: dict[str, str]) -> Path:
    """The profile of this machine without Slurm, in whose jobs `interpreter` runs."""
    lines = [
        "name: here",
        "engine: local",
        "device: cpu",
        "interconnect: none",
        f"python: {json.dumps(str(interpreter))}",
        f"env: {json.dumps(env)}",
        "partitions: [{name: local, groups: [{nodes: 1, cpus: 2, memory_gib: 16}]}]",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def events(log: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """What the stand-ins that wrote to `log` did, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = [json.loads(line) for line in lines]
    return [each for each in found if kind in (None, each["event"])]


def alive(pids: list[int]) -> list[int]:
    """Those of `pids` that run; one that has ended and waits for its parent does not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def processes(log: Path) -> list[int]:
    """The pids of every server in `log`, with those of their workers, that still run."""
    started = events(log, "start")
    return alive([pid for each in started for pid in (each["pid"], each["worker"])])


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, 9)
