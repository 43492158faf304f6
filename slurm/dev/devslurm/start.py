"""One start of a cluster, daemon by daemon."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from devslurm import clients, config, daemons, requirements
from devslurm.errors import DevSlurmError
from devslurm.layout import ACCOUNT, GPUS, NODES, Ports
from devslurm.state import Running

_PATIENCE_SECONDS = 60.0
# The stand-in of a GPU; a node of the NVIDIA driver's number might reach a real one.
_NULL_DEVICE = os.makedev(1, 3)


class Start:
    """The files, then the daemons in their order, each waited for. Raises DevSlurmError."""

    def __init__(self, running: Running, grace: int, settings: Mapping[str, str]) -> None:
        self._running = running
        self._grace = grace
        self._settings = settings
        self._layout = running.layout
        self._ports = Ports(running.first_port)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        """Return once every node takes jobs."""
        layout = self._layout
        self._make_folders()
        self._make_devices()
        self._write_configuration()
        self._daemon("munged")
        self._wait(lambda: _listens(layout.munge_socket), "munged's socket")
        if self._running.accounting:
            self._start_database()
        self._daemon("slurmctld")
        for name in NODES:
            self._daemon(name)
        self._wait(lambda: clients.nodes_up(layout), "every node to be idle")
        if self._running.accounting:
            # slurmdbd takes it once the controller has registered the cluster.
            self._wait(lambda: clients.has_account(layout), f"slurmdbd to take account {ACCOUNT}")

    def _start_database(self) -> None:
        layout = self._layout
        if not layout.database.is_dir():
            self._make_database()
        self._daemon("mariadbd")
        self._wait(lambda: _listens(layout.mysql_socket), "MariaDB")
        self._daemon("slurmdbd")
        self._wait(lambda: _listens(("127.0.0.1", self._ports.database)), "slurmdbd")

    def _make_database(self) -> None:
        server = daemons.database(self._layout)
        made = subprocess.run(
            # Forced: it would refuse a machine whose host name does not resolve.
            ["mariadb-install-db", *server, "--skip-test-db", "--skip-name-resolve", "--force"],
            env=clients.environment(self._layout),
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            # A half-made one would be taken for whole by the next start.
            shutil.rmtree(self._layout.database, ignore_errors=True)
            raise DevSlurmError(f"mariadb-install-db failed: {made.stderr or made.stdout}")

    def _make_folders(self) -> None:
        layout = self._layout
        for folder in layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        # Of an earlier start.
        for path in (
            *(layout.base / "processes").glob("*.json"),
            *(layout.base / "etc").glob("hosts.*"),
            layout.munge_socket,
            layout.mysql_socket,
        ):
            path.unlink(missing_ok=True)

    def _make_devices(self) -> None:
        for index in range(GPUS):
            device = self._layout.device(index)
            device.unlink(missing_ok=True)
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, _NULL_DEVICE)
            except PermissionError as error:
                raise DevSlurmError(
                    "this container may not make device files: start it with --cap-add MKNOD"
                ) from error

    def _write_configuration(self) -> None:
        layout, running = self._layout, self._running
        version = requirements.slurm_version()
        for path, inside in ((layout.slurm_conf, False), (layout.daemon_conf, True)):
            text = config.slurm_conf(
                layout,
                self._ports,
                version=version,
                accounting=running.accounting,
                grace=self._grace,
                settings=self._settings,
                inside=inside,
            )
            path.write_text(text)
        layout.gres_conf.write_text(config.gres_conf(layout))
        machine = Path("/etc/hosts").read_text(errors="replace")
        layout.hosts(running.mark).write_text(config.hosts(socket.gethostname(), machine))
        _write_secret(layout.slurmdbd_conf, config.slurmdbd_conf(layout, self._ports).encode())
        layout.database_init.write_text(config.database_init())
        _write_secret(layout.munge_key, secrets.token_bytes(128))

    def _daemon(self, name: str) -> None:
        self._children[name] = daemons.start(self._running, name)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not ready():
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise DevSlurmError(f"{name} ended at its start:\n{self._log_tail(name)}")
            if time.monotonic() > deadline:
                raise DevSlurmError(
                    f"waited {_PATIENCE_SECONDS:.0f} s for {what}; "
                    f"the logs are in {self._layout.base / 'log'}"
                )
            time.sleep(0.05)

    def _log_tail(self, name: str, lines: int = 8) -> str:
        tail: list[str] = []
        for path in (self._layout.log(name), self._layout.log(f"{name}.out")):
            if path.exists():
                tail += path.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(tail)


def _write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _listens(address: Path | tuple[str, int]) -> bool:
    """Whether a server accepts connections on a socket file or a TCP port."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
    return True
