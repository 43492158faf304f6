"""What the machine must have, and the sentence that says what it lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from devslurm.errors import DevSlurmError

# Command → the package of Debian and Ubuntu that holds it.
_ALWAYS = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "srun": "slurm-wlm",
    "unshare": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
_ACCOUNTING = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """PATH with the system's folders for daemons, which a user's PATH often lacks."""
    return os.environ.get("PATH", "") + ":" + _SYSTEM_PATH


def check(accounting: bool) -> None:
    """Raise DevSlurmError when this machine or user cannot run the cluster."""
    needed = {**_ALWAYS, **(_ACCOUNTING if accounting else {})}
    missing = [name for name in needed if shutil.which(name, path=search_path()) is None]
    if missing:
        packages = " ".join(dict.fromkeys(needed[name] for name in missing))
        raise DevSlurmError(
            f"not installed: {', '.join(missing)}; as root: "
            f"apt-get install -y --no-install-recommends {packages}"
        )
    if os.geteuid() != 0:
        raise DevSlurmError(
            "needs root, for namespaces and for Slurm's daemons: run it as root or with sudo"
        )
    trial = subprocess.run(
        ["unshare", "--uts", "--mount", "true"],
        env={"PATH": search_path()},
        capture_output=True,
        text=True,
    )
    if trial.returncode != 0:
        raise DevSlurmError(
            "this container may not make namespaces "
            f"({trial.stderr.strip()}): start it with --privileged or --cap-add SYS_ADMIN"
        )


def slurm_version() -> tuple[int, int]:
    """The release of the installed Slurm: `slurm-wlm 22.05.8` is (22, 5)."""
    text = subprocess.run(
        ["slurmctld", "-V"], env={"PATH": search_path()}, capture_output=True, text=True
    ).stdout
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None:
        raise DevSlurmError(f"slurmctld -V says {text.strip()!r}, which names no version")
    return int(match[1]), int(match[2])
