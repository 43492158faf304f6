"""Start and end one cluster in a state folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from devslurm import config, processes, requirements
from devslurm.errors import DevSlurmError
from devslurm.layout import ACCOUNT, GPUS, NODES, Layout, Ports

Say = Callable[[str], None]

_START_SECONDS = 60.0
# The stand-in of a GPU; a node of the NVIDIA driver's number might reach a real one.
_NULL_DEVICE = os.makedev(1, 3)
# What a path needs after the base: spool/NODE/NODE_JOB.STEP, the longest socket.
_SOCKET_TAIL = 40
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")

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


@dataclass(frozen=True)
class Running:
    """What `down`, or a second `up`, must know of a cluster; it lies in its state folder."""

    mark: str
    base: str
    first_port: int
    accounting: bool

    @property
    def layout(self) -> Layout:
        return Layout(Path(self.base))

    @property
    def daemons(self) -> tuple[str, ...]:
        accounting = ("mariadbd", "slurmdbd") if self.accounting else ()
        return ("munged", *accounting, "slurmctld", *NODES)


def up(state: Path, *, accounting: bool, port: int | None, grace: int, say: Say) -> Path:
    """Have a cluster run in `state`; returns the slurm.conf that its clients need.

    Raises DevSlurmError when it cannot; what was started by then has been ended.
    """
    requirements.check(accounting)
    state.mkdir(parents=True, exist_ok=True, mode=0o755)
    with _locked(state):
        running = _read(state)
        if running is not None:
            if _answers(running):
                if accounting and not running.accounting:
                    raise DevSlurmError(
                        f"the cluster in {state} runs without accounting: slurm/dev/down first"
                    )
                say(f"already running in {state}")
                return running.layout.slurm_conf
            say(f"the cluster in {state} is incomplete: starting it anew")
            _end(state, running, say)
        began = time.monotonic()
        running = Running(secrets.token_hex(8), str(_base(state)), _ports(port).first, accounting)
        _write(state, running)
        try:
            _Start(running, grace).run()
        except BaseException:
            _end(state, running, say)
            raise
        say(f"{len(NODES)} nodes are up after {time.monotonic() - began:.1f} s in {state}")
        return running.layout.slurm_conf


def down(state: Path, *, say: Say) -> None:
    """End the cluster of `state`, its jobs included; files stay, so that job ids go on."""
    if not state.is_dir():
        say(f"no cluster in {state}")
        return
    with _locked(state):
        running = _read(state)
        if running is None:
            say(f"no cluster in {state}")
            return
        _end(state, running, say)
        say(f"ended the cluster in {state}")


class _Start:
    """One start, daemon by daemon."""

    def __init__(self, running: Running, grace: int) -> None:
        self.running = running
        self.grace = grace
        self.layout = running.layout
        self.ports = Ports(running.first_port)
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        self._write_files()
        layout = self.layout
        self._daemon(
            "munged",
            ["munged", "--foreground", "--force"]
            + [f"--socket={layout.munge_socket}", f"--key-file={layout.munge_key}"]
            + [f"--pid-file={layout.pid_file('munged')}", f"--seed-file={layout.base}/run/seed"]
            + [f"--log-file={layout.log('munged')}"],
        )
        self._wait(lambda: _listens(socket.AF_UNIX, str(layout.munge_socket)), "munged's socket")
        if self.running.accounting:
            self._start_database()
        self._daemon("slurmctld", ["slurmctld", "-D", "-f", str(layout.slurm_conf)])
        for name in NODES:
            self._daemon(
                name, ["slurmd", "-D", "-N", name, "-f", str(layout.slurm_conf)], host=name
            )
        self._wait(lambda: _nodes_up(layout), "every node to be idle")
        if self.running.accounting:
            self._make_account()

    def _start_database(self) -> None:
        layout = self.layout
        server = ["--no-defaults", "--user=root", f"--datadir={layout.database}"]
        if not (layout.database / "mysql").is_dir():
            made = subprocess.run(
                ["mariadb-install-db", *server, "--skip-test-db", "--skip-name-resolve"],
                env=_environment(layout),
                capture_output=True,
                text=True,
            )
            if made.returncode != 0:
                shutil.rmtree(layout.database, ignore_errors=True)
                raise DevSlurmError(f"mariadb-install-db failed: {made.stderr or made.stdout}")
        self._daemon(
            "mariadbd",
            ["mariadbd", *server, "--skip-networking", f"--socket={layout.mysql_socket}"]
            + [f"--pid-file={layout.pid_file('mariadbd')}", f"--init-file={layout.database_init}"]
            # A scratch database: speed before safety, and no need of the kernel's AIO.
            + ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
            + ["--innodb-use-native-aio=0", "--skip-innodb-doublewrite"],
        )
        self._wait(lambda: _listens(socket.AF_UNIX, str(layout.mysql_socket)), "MariaDB")
        self._daemon("slurmdbd", ["slurmdbd", "-D"])
        address = ("127.0.0.1", self.ports.database)
        self._wait(lambda: _listens(socket.AF_INET, address), "slurmdbd")

    def _make_account(self) -> None:
        """An account with root in it; slurmdbd takes it once the cluster has registered itself."""
        self._wait(lambda: _has_account(self.layout), f"slurmdbd to take account {ACCOUNT}")

    def _write_files(self) -> None:
        layout, running = self.layout, self.running
        for folder in layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        for stale in (layout.base / "processes").glob("*.json"):
            stale.unlink()
        for socket_file in (layout.munge_socket, layout.mysql_socket):
            socket_file.unlink(missing_ok=True)
        for stale in (layout.base / "etc").glob("hosts.*"):
            stale.unlink()
        for index in range(GPUS):
            device = layout.device(index)
            device.unlink(missing_ok=True)
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, _NULL_DEVICE)
            except PermissionError as error:
                raise DevSlurmError(
                    "this container may not make device files: start it with --cap-add MKNOD"
                ) from error
        version = requirements.slurm_version()
        for path, inside in ((layout.slurm_conf, False), (layout.daemon_conf, True)):
            text = config.slurm_conf(
                layout,
                self.ports,
                version=version,
                accounting=running.accounting,
                grace=self.grace,
                inside=inside,
            )
            path.write_text(text)
        layout.gres_conf.write_text(config.gres_conf(layout))
        layout.hosts(running.mark).write_text(config.hosts(socket.gethostname()))
        layout.slurmdbd_conf.write_text(config.slurmdbd_conf(layout, self.ports))
        layout.slurmdbd_conf.chmod(0o600)
        layout.database_init.write_text(config.database_init())
        if not layout.munge_key.exists():
            layout.munge_key.write_bytes(secrets.token_bytes(128))
            layout.munge_key.chmod(0o600)

    def _daemon(self, name: str, command: Sequence[str], host: str = "") -> None:
        layout = self.layout
        with layout.log(f"{name}.out").open("ab") as output:
            child = subprocess.Popen(
                ["unshare", "--uts", "--mount", "sh", "-c", _ENTER, "sh"]
                + [str(layout.hosts(self.running.mark)), str(layout.slurm_conf), host, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=layout.base,
                env=_environment(layout),
                start_new_session=True,
            )
        processes.record(layout.base / "processes", name, child.pid)
        self.children[name] = child

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise DevSlurmError(f"{name} ended at its start:\n{self._log_tail(name)}")
            if time.monotonic() > deadline:
                raise DevSlurmError(
                    f"waited {_START_SECONDS:.0f} s for {what}; "
                    f"the logs are in {self.layout.base / 'log'}"
                )
            time.sleep(0.05)

    def _log_tail(self, name: str, lines: int = 8) -> str:
        tail: list[str] = []
        for path in (self.layout.log(name), self.layout.log(f"{name}.out")):
            if path.exists():
                tail += path.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(tail) or f"(nothing in {self.layout.base / 'log'})"


def _end(state: Path, running: Running, say: Say) -> None:
    layout = running.layout
    alive = processes.recorded(state / "processes")
    if "slurmctld" in alive:
        _cancel_jobs(layout)
    for names, patience in (
        (("slurmctld",), 10.0),
        (NODES, 5.0),
        (("slurmdbd",), 10.0),
        (("mariadbd",), 30.0),
        (("munged",), 5.0),
    ):
        processes.stop([alive[name] for name in names if name in alive], patience)
    # What is left: jobs, and a daemon that was started but not noted yet.
    processes.sweep(running.mark)
    for path in (state / "processes").glob("*.json"):
        path.unlink()
    if layout.base != state:
        shutil.rmtree(layout.base.parent, ignore_errors=True)
    (state / _RECORD).unlink(missing_ok=True)


def _cancel_jobs(layout: Layout) -> None:
    """Cancel what is queued and running, so that the next start finds an empty queue."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        for job_state in ("PENDING", "RUNNING", "SUSPENDED"):
            _client(layout, "scancel", f"--state={job_state}", timeout=20)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            queue = _client(layout, "squeue", "--noheader", "--format=%A")
            if queue.returncode != 0 or not queue.stdout.strip():
                return
            time.sleep(0.1)


_RECORD = "cluster.json"


def _write(state: Path, running: Running) -> None:
    partial = state / f"{_RECORD}.partial"
    partial.write_text(json.dumps(asdict(running)))
    partial.replace(state / _RECORD)


def _read(state: Path) -> Running | None:
    path = state / _RECORD
    return Running(**json.loads(path.read_text())) if path.exists() else None


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time for one state folder."""
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _base(state: Path) -> Path:
    """`state`, or a new short link to it where its path is too long or odd for Slurm."""
    longest = len(os.fsencode(state)) + len("/spool/") + _SOCKET_TAIL
    if longest <= 107 and _PLAIN_PATH.fullmatch(str(state)):
        return state
    link = Path(tempfile.mkdtemp(prefix="devslurm-", dir="/tmp")) / "s"
    link.symlink_to(state)
    return link


def _ports(first: int | None) -> Ports:
    """The ports from `first` on, or a free block below the range of outgoing connections."""
    if first is not None:
        ports = Ports(first)
        taken = [port for port in ports.all if not _free(port)]
        if taken:
            raise DevSlurmError(f"port {taken[0]} is taken: give another --port, or none")
        return ports
    for _ in range(100):
        ports = Ports(random.randrange(12000, 32000))
        if all(_free(port) for port in ports.all):
            return ports
    raise DevSlurmError("found no free block of ports: give one with --port")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _listens(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def _environment(layout: Layout) -> Mapping[str, str]:
    return {
        "PATH": requirements.search_path(),
        "LANG": "C.UTF-8",
        "SLURM_CONF": str(layout.slurm_conf),
        "MYSQL_UNIX_PORT": str(layout.mysql_socket),
    }


def _client(layout: Layout, *command: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(layout), capture_output=True, text=True, timeout=timeout
    )


def _nodes_up(layout: Layout) -> bool:
    """Whether every node takes jobs. One in use counts: another `up` may look at a busy cluster."""
    try:
        nodes = _client(layout, "sinfo", "--noheader", "--Node", "--format=%N %T")
    except subprocess.TimeoutExpired:
        return False
    states = dict(line.split() for line in nodes.stdout.splitlines())
    return set(states) == set(NODES) and set(states.values()) <= {"idle", "mixed", "allocated"}


def _answers(running: Running) -> bool:
    alive = processes.recorded(running.layout.base / "processes")
    return set(running.daemons) <= set(alive) and _nodes_up(running.layout)


def _has_account(layout: Layout) -> bool:
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
