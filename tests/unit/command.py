"""The `launcher` command as a process, as tests run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(sys.executable).parent / "launcher"
# What a user's shell may hold that would change what a test sees.
_OURS = ("LAUNCHER_RUNS", "LAUNCHER_CLUSTER", "NO_COLOR", "FORCE_COLOR", "PYTHONPATH", "SLURM_CONF")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def data(self, kind: str) -> Any:
        """What the one JSON document on stdout holds."""
        document = json.loads(self.out)
        assert set(document) == {"schema_version", "kind", "data"}
        assert (document["schema_version"], document["kind"]) == (1, kind)
        return document["data"]


def launcher(
    *words: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    code: int = 0,
    encoding: str = "utf-8",
) -> Ended:
    """`launcher WORDS` in `folder`; fails where it does not exit with `code`."""
    clean = {name: value for name, value in os.environ.items() if name not in _OURS}
    done = subprocess.run(
        [LAUNCHER, *words],
        capture_output=True,
        encoding=encoding,
        cwd=folder,
        env={**clean, **(env or {})},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)
