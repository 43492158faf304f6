"""What a submission takes: wall time of `launcher submit` for a chain of four stages.

    python benchmarks/submit_speed.py [--json] [--rounds N]

A Slurm is started for it on this machine, whose nodes take no jobs. Each round submits a new run,
the same again, and then the very scripts of the run by bare `sbatch`, the floor: no launcher
is faster than the calls that it makes. Machines differ and are shared, so the best time of all
rounds counts, and processor time stands beside it. Modules are compiled by then, as an installed
package's are.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.slurm.devcluster import DevCluster, start, stop

LAUNCHER = Path(sys.executable).parent / "launcher"
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny" / "ppo.yaml"
STAGES = 4
ROUNDS = 7


@dataclass(frozen=True)
class Timed:
    what: str
    wall: float
    """Seconds, the best of all rounds."""
    processor: float
    """Seconds of user and system time, of what it starts too; the best of all rounds."""
    ratio: float
    """Of the wall time to the floor's."""


@dataclass(frozen=True)
class _Spent:
    wall: float
    processor: float


def measure(rounds: int = ROUNDS) -> list[Timed]:
    """All figures, the floor first."""
    with tempfile.TemporaryDirectory() as home:
        state = Path(home) / "slurm"
        try:
            cluster = start(state)
            cluster.run("scontrol", "update", "nodename=ALL", "state=drain", "reason=measuring")
            spent = _rounds(cluster, Path(home), rounds)
        finally:
            stop(state)
    best = {
        what: _Spent(min(s.wall for s in each), min(s.processor for s in each))
        for what, each in spent.items()
    }
    floor = best[f"{STAGES} bare sbatch"].wall
    return [Timed(what, s.wall, s.processor, s.wall / floor) for what, s in best.items()]


def _rounds(cluster: DevCluster, home: Path, rounds: int) -> Mapping[str, list[_Spent]]:
    hidden = {"PYTHONDONTWRITEBYTECODE", "LAUNCHER_RUNS"}
    env = {k: v for k, v in cluster.env.items() if k not in hidden}
    env |= {"PYTHONPYCACHEPREFIX": str(home / "compiled"), "LAUNCHER_CLUSTER": "dev"}
    spent: dict[str, list[_Spent]] = {
        f"{STAGES} bare sbatch": [],
        "python -c pass": [],
        "launcher submit --dry-run": [],
        "launcher submit": [],
        "launcher submit, again": [],
    }

    def timed(what: str, *commands: Sequence[str | Path]) -> None:
        def work() -> None:
            for words in commands:
                subprocess.run(words, check=True, capture_output=True, env=env, cwd=home)

        spent[what].append(_timed(work))

    # The first round compiles.
    for number in range(rounds + 1):
        runs = home / f"runs-{number}"
        submit = (LAUNCHER, "submit", RECIPE, "--yes", "--runs", runs)
        timed("python -c pass", (sys.executable, "-c", "pass"))
        timed("launcher submit --dry-run", (*submit, "--dry-run"))
        timed("launcher submit", submit)
        timed("launcher submit, again", submit)
        scripts = sorted(runs.glob("*/stages/*/logs/*_submission.sh"))
        assert len(scripts) == STAGES
        timed(f"{STAGES} bare sbatch", *(("sbatch", script) for script in scripts))
        cluster.run("scancel", f"--user={os.getuid()}")
    return {what: each[1:] for what, each in spent.items()}


def _timed(work: Callable[[], None]) -> _Spent:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Spent(ended - began, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    args = parser.parse_args()
    found = measure(args.rounds)
    if args.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    print(f"{'':<28} {'wall':>8} {'processor':>10}")
    for each in found:
        wall, processor = each.wall * 1000, each.processor * 1000
        print(f"{each.what:<28} {wall:5.0f} ms {processor:7.0f} ms {each.ratio:6.1f} ×")


if __name__ == "__main__":
    main()
