"""What is asked of a running cluster, with Slurm's own commands."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping

from devslurm import requirements
from devslurm.layout import ACCOUNT, NODES, Layout


def environment(layout: Layout) -> Mapping[str, str]:
    """The environment of the cluster's daemons and commands; nothing of the caller's but PATH."""
    return {
        "PATH": requirements.search_path(),
        "LANG": "C.UTF-8",
        "SLURM_CONF": str(layout.slurm_conf),
        "MYSQL_UNIX_PORT": str(layout.mysql_socket),
    }


def _client(layout: Layout, *command: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(layout), capture_output=True, text=True, timeout=timeout
    )


def nodes_up(layout: Layout) -> bool:
    """Whether every node takes jobs. A busy one counts: a second `up` may meet a busy cluster."""
    try:
        nodes = _client(layout, "sinfo", "--noheader", "--Node", "--format=%N %T")
    except subprocess.TimeoutExpired:
        return False
    states = dict(line.split() for line in nodes.stdout.splitlines())
    return set(states) == set(NODES) and set(states.values()) <= {"idle", "mixed", "allocated"}


def has_account(layout: Layout) -> bool:
    """Whether root may use the account; asks for it to be made where not."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        where = [f"account={ACCOUNT}", "user=root"]
        shown = _client(layout, "sacctmgr", "-nP", "show", "assoc", *where, "format=user")
        if shown.stdout.strip() == "root":
            return True
        _client(layout, "sacctmgr", "-iQ", "add", "account", ACCOUNT)
        _client(
            layout, "sacctmgr", "-iQ", "add", "user", "root", where[0], f"DefaultAccount={ACCOUNT}"
        )
    return False


def cancel_jobs(layout: Layout) -> None:
    """Cancel what is queued and running, so that the next start finds an empty queue."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            _client(layout, "scancel", f"--state={state}", timeout=20)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            queue = _client(layout, "squeue", "--noheader", "--format=%A")
            if queue.returncode != 0 or not queue.stdout.strip():
                return
            time.sleep(0.1)
