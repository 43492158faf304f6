"""Commands of Slurm that misbehave: a script goes first on PATH and calls the real one, or not."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from collections.abc import Mapping

from tests.faults.case import Case
from tests.faults.site import DEV


def sbatch(case: Case, body: str) -> Mapping[str, str]:
    """The environment of a launcher whose `sbatch` runs `body` first, then the real one.

    In it `$n` says the how many-th this is, `$real` is the real command, `$here` the case's folder.
    """
    folder = case.folder / "bin"
    folder.mkdir(exist_ok=True)
    script = folder / "sbatch"
    real = shutil.which("sbatch")
    assert real is not None
    script.write_text(
        "#!/bin/bash\n"
        f"here={shlex.quote(str(case.folder))} real={shlex.quote(real)}\n"
        'for n in $(seq 1 99); do (set -C; : > "$here/sbatch.$n") 2> /dev/null && break; done\n'
        f"{textwrap.dedent(body)}\n"
        'exec "$real" "$@"\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}:{case.site.env['PATH']}"}


def calls(case: Case) -> int:
    """How often that `sbatch` was called."""
    return len(list(case.folder.glob("sbatch.*")))


def daemon(case: Case, action: str, name: str) -> str:
    """The shell words that kill or start a daemon of the case's cluster."""
    words = [str(DEV / "daemon"), "--state", str(case.site.state), action, name]
    return shlex.join(words)
