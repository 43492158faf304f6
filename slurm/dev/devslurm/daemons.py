"""The daemons of a cluster: how each is started, at the first start and after it was killed."""

from __future__ import annotations

import subprocess

from devslurm import clients, processes
from devslurm.layout import NODES, Layout
from devslurm.state import Running

# Enters the namespaces that `unshare` made, then becomes the daemon, so that the pid stays.
# The limit: daemons close every descriptor that they might have, a thousand million in some
# containers.
_ENTER = """
hosts=$1 conf=$2 name=$3; shift 3
[ -z "$name" ] || hostname "$name" || exit 1
mount --bind "$hosts" /etc/hosts || exit 1
mount --bind "$conf.daemons" "$conf" || exit 1
ulimit -n 65536 2>/dev/null
exec "$@"
"""

# A scratch database: small and quick before safe, and no need of the kernel's AIO.
_SCRATCH_DATABASE = (
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-use-native-aio=0",
    "--skip-innodb-doublewrite",
)


def start(running: Running, name: str) -> subprocess.Popen[bytes]:
    """Start daemon `name` of the cluster, and note its pid; nobody waits for it to answer."""
    layout = running.layout
    enter = ("unshare", "--uts", "--mount", "sh", "-c", _ENTER, "sh")
    host = name if name in NODES else ""
    with layout.log(f"{name}.out").open("ab") as output:
        child = subprocess.Popen(
            [*enter, str(layout.hosts(running.mark)), str(layout.slurm_conf), host,
             *_command(layout, name)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=layout.base,
            env=clients.environment(layout),
            start_new_session=True,
        )  # fmt: skip
    processes.record(layout.base / "processes", name, child.pid)
    return child


def database(layout: Layout) -> tuple[str, ...]:
    """The options that the database is made and served with."""
    return ("--no-defaults", "--user=root", f"--datadir={layout.database}", *_SCRATCH_DATABASE)


def _command(layout: Layout, name: str) -> tuple[str, ...]:
    conf = ("-f", str(layout.slurm_conf))
    if name in NODES:
        return ("slurmd", "-D", "-N", name, *conf)
    if name == "slurmctld":
        return ("slurmctld", "-D", *conf)
    if name == "slurmdbd":
        return ("slurmdbd", "-D")
    if name == "munged":
        return (
            "munged",
            "--foreground",
            "--force",
            f"--socket={layout.munge_socket}",
            f"--key-file={layout.munge_key}",
            f"--pid-file={layout.pid_file('munged')}",
            f"--seed-file={layout.base / 'run' / 'munge.seed'}",
            f"--log-file={layout.log('munged')}",
        )
    assert name == "mariadbd"
    return (
        "mariadbd",
        *database(layout),
        "--skip-networking",
        f"--socket={layout.mysql_socket}",
        f"--pid-file={layout.pid_file('mariadbd')}",
        f"--init-file={layout.database_init}",
    )
