"""Start and end the cluster of a state folder."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from devslurm import clients, daemons, ports, processes, requirements, state
from devslurm.errors import DevSlurmError
from devslurm.layout import NODES
from devslurm.start import Start
from devslurm.state import Running

Say = Callable[[str], None]

# The order in which daemons end, and the seconds that each has for it. A slurmd has nothing to
# save, and waits for jobs that ignore SIGTERM.
_ENDING = (
    (("slurmctld",), 10.0),
    (NODES, 1.0),
    (("slurmdbd",), 10.0),
    (("mariadbd",), 30.0),
    (("munged",), 5.0),
)

# How long a daemon may take to be gone after a signal that ends it.
_GOING_S = 20.0


def up(
    folder: Path,
    *,
    accounting: bool,
    port: int | None,
    grace: int,
    settings: Mapping[str, str],
    say: Say,
) -> Path:
    """Have a cluster run in `folder`; returns the slurm.conf that its clients need.

    `settings`: of slurm.conf, in place of what it would have. Raises DevSlurmError when it cannot;
    what was started by then has been ended.
    """
    requirements.check(accounting)
    folder.mkdir(parents=True, exist_ok=True)
    with state.locked(folder):
        running = state.read(folder)
        if running is not None:
            if _answers(folder, running):
                if accounting and not running.accounting:
                    raise DevSlurmError(
                        f"the cluster in {folder} runs without accounting: slurm/dev/down first"
                    )
                say(f"already running in {folder}")
                return running.layout.slurm_conf
            say(f"the cluster in {folder} is incomplete: starting it anew")
            _end(folder, running)
        began = time.monotonic()
        running = Running(
            mark=secrets.token_hex(8),
            first_port=ports.choose(port).first,
            base=str(state.base_of(folder)),
            accounting=accounting,
        )
        # Before the first process, so that `down` can end a start that was cut short.
        state.write(folder, running)
        try:
            Start(running, grace, settings).run()
        except BaseException:
            _end(folder, running)
            raise
        say(f"{len(NODES)} nodes are up after {time.monotonic() - began:.1f} s in {folder}")
        return running.layout.slurm_conf


def down(folder: Path, *, say: Say) -> None:
    """End the cluster of `folder`, its jobs included; files stay, so that job ids go on."""
    if folder.is_dir():
        with state.locked(folder):
            running = state.read(folder)
            if running is not None:
                _end(folder, running)
                say(f"ended the cluster in {folder}")
                return
    say(f"no cluster in {folder}")


def signal_daemon(folder: Path, name: str, number: signal.Signals) -> int:
    """Send a signal to a daemon of the cluster of `folder`; returns its pid.

    After SIGKILL and SIGTERM it is gone when this returns. Raises DevSlurmError where it does not
    run.
    """
    daemon = processes.recorded(folder / "processes").get(name)
    if daemon is None:
        raise DevSlurmError(f"no {name} runs in {folder}")
    daemon.send(number)
    deadline = time.monotonic() + _GOING_S
    while number in (signal.SIGKILL, signal.SIGTERM) and daemon.alive:
        if time.monotonic() > deadline:
            raise DevSlurmError(f"{name} still runs {_GOING_S:.0f} s after {number.name}")
        time.sleep(0.01)
    return daemon.pid


def start_daemon(folder: Path, name: str) -> int:
    """Start a daemon of the cluster of `folder` that has ended; returns its pid.

    Raises DevSlurmError where it runs, or there is no cluster.
    """
    with state.locked(folder):
        running = state.read(folder)
        if running is None or name not in running.daemons:
            raise DevSlurmError(f"the cluster in {folder} has no {name}")
        if name in processes.recorded(folder / "processes"):
            raise DevSlurmError(f"{name} runs in {folder} already")
        return daemons.start(running, name).pid


def _answers(folder: Path, running: Running) -> bool:
    alive = processes.recorded(folder / "processes")
    return set(running.daemons) <= set(alive) and clients.nodes_up(running.layout)


def _end(folder: Path, running: Running) -> None:
    alive = processes.recorded(folder / "processes")
    if "slurmctld" in alive:
        clients.cancel_jobs(running.layout)
    for names, patience in _ENDING:
        processes.stop([alive[name] for name in names if name in alive], patience)
    # What is left: jobs, and a daemon that was started but not noted yet.
    processes.sweep(running.mark)
    for path in (folder / "processes").glob("*.json"):
        path.unlink()
    state.forget(folder, running)
