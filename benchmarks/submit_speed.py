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
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.spent import Spent, by_commands, compiled
from tests.slurm.devcluster import DevCluster, start, stop

LAUNCHER = Path(sys.executable).parent / "launcher"
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny" / "ppo.yaml"
STAGES = 4
FLOOR = f"{STAGES} bare sbatch"
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


def measure(rounds: int = ROUNDS) -> list[Timed]:
    """All figures, the floor last."""
    with tempfile.TemporaryDirectory() as home:
        state = Path(home) / "slurm"
        try:
            cluster = start(state)
            cluster.run("scontrol", "update", "nodename=ALL", "state=drain", "reason=measuring")
            taken = _rounds(cluster, Path(home), rounds)
        finally:
            stop(state)
    walls = {what: min(each.wall for each in times) for what, times in taken.items()}
    return [
        Timed(what, walls[what], min(each.processor for each in times), walls[what] / walls[FLOOR])
        for what, times in taken.items()
    ]


def _rounds(cluster: DevCluster, home: Path, rounds: int) -> Mapping[str, list[Spent]]:
    env = compiled(home / "compiled", cluster.env) | {"LAUNCHER_CLUSTER": "dev"}
    taken: dict[str, list[Spent]] = defaultdict(list)

    def timed(what: str, *commands: Sequence[str | Path]) -> None:
        def work() -> None:
            for words in commands:
                subprocess.run(words, check=True, capture_output=True, env=env, cwd=home)

        taken[what].append(by_commands(work))

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
        timed(FLOOR, *(("sbatch", script) for script in scripts))
        cluster.run("scancel", f"--user={os.getuid()}")
    return {what: each[1:] for what, each in taken.items()}


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
