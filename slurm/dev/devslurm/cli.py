"""The command lines of `up` and `down`: data on stdout, words on stderr."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from devslurm.cluster import down, signal_daemon, start_daemon, up
from devslurm.errors import DevSlurmError
from devslurm.layout import KINDS, NODES, PARTITIONS

_CHECKOUT = Path(__file__).resolve().parents[3]
_SIGNALS = {
    "kill": signal.SIGKILL,
    "end": signal.SIGTERM,
    "halt": signal.SIGSTOP,
    "go-on": signal.SIGCONT,
}


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--state",
        type=Path,
        default=_CHECKOUT / ".cache" / "slurm",
        metavar="DIR",
        help="the folder that holds everything of the cluster (default: %(default)s)",
    )
    return parser


def _say(text: str) -> None:
    print(f"dev slurm: {text}", file=sys.stderr)


def main_up(argv: Sequence[str] | None = None) -> int:
    nodes = ", ".join(f"{kind.count} with {kind.gpu}" for kind in KINDS)
    partitions = ", ".join(part.name for part in PARTITIONS)
    parser = _parser(
        f"Start a Slurm on this machine: nodes {nodes}; partitions {partitions}. "
        'Then: eval "$(slurm/dev/up)"'
    )
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd on MariaDB")
    parser.add_argument(
        "--port", type=int, metavar="N", help="first of a block of ports (default: a free block)"
    )
    parser.add_argument(
        "--grace",
        type=int,
        default=20,
        metavar="SECONDS",
        help="between a preempted job's signal and its end (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a line of slurm.conf in place of the one it would have, or with no VALUE none; "
        "may be given often",
    )
    args = parser.parse_args(argv)
    try:
        conf = up(
            args.state.absolute(),
            accounting=args.accounting,
            port=args.port,
            grace=args.grace,
            settings=dict(line.split("=", 1) for line in args.set if "=" in line),
            say=_say,
        )
    except (DevSlurmError, TimeoutError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"export SLURM_CONF={shlex.quote(str(conf))}")
    return 0


def main_down(argv: Sequence[str] | None = None) -> int:
    args = _parser("End the Slurm that slurm/dev/up started, with its jobs.").parse_args(argv)
    try:
        down(args.state.absolute(), say=_say)
    except (DevSlurmError, TimeoutError) as error:
        _say(str(error))
        return 1
    return 0


def main_daemon(argv: Sequence[str] | None = None) -> int:
    parser = _parser("End, halt or start a daemon of the Slurm that slurm/dev/up started.")
    parser.add_argument("action", choices=("kill", "end", "halt", "go-on", "start"))
    parser.add_argument("name", help=f"slurmctld, slurmdbd, mariadbd, munged, {', '.join(NODES)}")
    args = parser.parse_args(argv)
    folder = args.state.absolute()
    try:
        if args.action == "start":
            print(start_daemon(folder, args.name))
        else:
            print(signal_daemon(folder, args.name, _SIGNALS[args.action]))
    except DevSlurmError as error:
        _say(str(error))
        return 1
    return 0
