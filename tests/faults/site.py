"""A Slurm of one's own whose jobs can be hooked, and the launcher as its user calls it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.fault import Lost

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / "slurm" / "dev"
HOOK = Path(__file__).parent / "hook.py"
TIMEOUT_S = 300
_LAUNCHER = "from launcher.cli.main import main; main()"

CLUSTERS: Mapping[str, tuple[str, ...]] = {
    "shared": ("--grace", "10"),
    # Its daemons are killed.
    "own": ("--grace", "10"),
    # The runs lie on a small disk.
    "small disk": ("--grace", "10"),
    # It forgets a job two seconds after its end.
    "forgetful": ("--grace", "10", "--set", "MinJobAge=2"),
    # A preempted job is sent SIGTERM and nothing before it.
    # Which of the two asks for another signal depends on the version.
    "no user signal":
        ("--grace", "10", "--set", "PreemptParameters=", "--set", "SlurmctldParameters="),
    "accounting": ("--grace", "10", "--accounting"),
}  # fmt: skip
"""Name → what `slurm/dev/up` is told."""


@dataclass(frozen=True)
class Said:
    """What a command of the launcher left."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Site:
    """One cluster, the folder of its runs, and the environment of its users."""

    home: Path
    state: Path
    env: Mapping[str, str]
    cluster: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    def start(self, *words: str | Path, env: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """A command of the launcher; `env`: more of its environment."""
        return subprocess.Popen(
            [self.env["FAULT_PYTHON"], "-c", _LAUNCHER, *map(str, words)],
            env={**self.env, **env},
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def call(self, *words: str | Path, env: Mapping[str, str] = {}) -> Said:
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            process.kill()
            raise Lost(f"launcher {words[0]} did not end in {TIMEOUT_S} s") from late
        return Said(process.returncode, out, err)

    def data(self, *words: str | Path) -> Any:
        """The data that a command prints. Raises Lost with its last words."""
        said = self.call(*words, "--json")
        if said.code != 0:
            lines = [line for line in said.err.splitlines() if line.strip()]
            raise Lost(f"launcher {words[0]} exited {said.code}: " + " ".join(lines[-4:])[-400:])
        return json.loads(said.out)["data"]

    def slurm(self, *argv: str, check: bool = True) -> str:
        """What one of Slurm's commands prints. Raises Lost where it fails and `check` is set."""
        done = subprocess.run(
            argv, env=dict(self.env), cwd=self.home, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode != 0:
            raise Lost(f"{shlex.join(argv)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def answers(self) -> bool:
        done = subprocess.run(
            ["squeue", "--noheader"], env=dict(self.env), capture_output=True, timeout=60
        )
        return done.returncode == 0

    def daemon(self, action: str, name: str) -> int:
        """Kill, end, halt, go on with or start a daemon; returns its pid. Raises Lost."""
        command = [str(DEV / "daemon"), "--state", str(self.state), action, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Lost(f"{action} {name}: {done.stderr.strip()}")
        return int(done.stdout)

    def heal(self) -> None:
        """Have every daemon run, every node take jobs and no job be queued."""
        for name in self.daemons():
            done = subprocess.run(
                [DEV / "daemon", "--state", self.state, "start", name], capture_output=True
            )
            if done.returncode == 0:
                time.sleep(1)
        until(self.answers, "the controller answers", 60)
        self.slurm("scancel", "--user=root", check=False)
        for name in ("a100", "h100", "preempt"):
            self.slurm("scontrol", "update", f"partitionname={name}", "state=up", check=False)
        broken = self.slurm("sinfo", "--noheader", "-N", "--format=%N %T").split("\n")
        for line in broken:
            if line and not line.endswith((" idle", " mixed", " allocated", " completing")):
                node = line.split()[0]
                self.slurm(
                    "scontrol", "update", f"nodename={node}", "state=resume", check=False
                )  # fmt: skip
        until(self._idle, "the cluster is idle", 90)

    def daemons(self) -> tuple[str, ...]:
        accounting = ("mariadbd", "slurmdbd") if self.cluster == "accounting" else ()
        return ("munged", *accounting, "slurmctld", "a100-1", "a100-2", "h100-1", "h100-2")

    def _idle(self) -> bool:
        nodes = self.slurm("sinfo", "--noheader", "--format=%T", check=False).split()
        return set(nodes) == {"idle"} and not self.slurm("squeue", "--noheader", check=False)


def until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Return once `condition` holds. Raises Lost when it does not in `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Lost(f"still not after {timeout_s:g} s: {what}")
        time.sleep(0.05)


def python(folder: Path) -> Path:
    """The Python of a new environment in `folder`: this one's packages, and the hook."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        theirs = sysconfig.get_path("purelib")
        (own / "packages.pth").write_text(f"import site; site.addsitedir({theirs!r})\n")
        (own / "fault_hook.py").write_text(HOOK.read_text())
        (own / "fault_hook.pth").write_text("import fault_hook\n")
        # The worker compiles with the ninja beside its Python: another version builds all anew.
        ninja = Path(sys.executable).parent / "ninja"
        if ninja.exists():
            (folder / "bin" / "ninja").symlink_to(ninja)
    return folder / "bin" / "python"


@contextmanager
def site(home: Path, cluster: str = "shared") -> Iterator[Site]:
    """A fresh cluster of that name; state and runs lie in `home`. It ends with the block."""
    home.mkdir(parents=True, exist_ok=True)
    state = home / "slurm"
    runs = home / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    interpreter = python(home / "python")
    # Before the daemons, which have their own name space of mounts.
    small = cluster == "small disk"
    if small:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=96m,mode=0700", "small", runs], check=True
        )
    try:
        command = [str(DEV / "up"), "--state", str(state), *CLUSTERS[cluster]]
        started = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if started.returncode != 0:
            raise Lost(f"no Slurm: {started.stderr.strip()[-400:]}")
        name, value = shlex.split(started.stdout)[1].split("=", 1)
        env = {
            **os.environ,
            name: value,
            "LAUNCHER_CLUSTER": str(_profile(home, interpreter)),
            "LAUNCHER_RUNS": str(runs),
            "FAULT_PYTHON": str(interpreter),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        yield Site(home, state, env, cluster)
    finally:
        subprocess.run([DEV / "down", "--state", state], check=False, timeout=120)
        if small:
            subprocess.run(["umount", "--lazy", runs], check=False)


def _profile(home: Path, interpreter: Path) -> Path:
    """The shipped profile of the development Slurm, with the Python that can be hooked."""
    shipped = (ROOT / "slurm" / "clusters" / "dev.yaml").read_text()
    path = home / "dev.yaml"
    path.write_text(f"{shipped}python: {json.dumps(str(interpreter))}\n")
    return path
