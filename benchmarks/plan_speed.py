"""What planning costs a login node: processor time of `launcher plan`, and of a search alone.

    python benchmarks/plan_speed.py [--json]

Each command is run several times and its best time counts; its modules are compiled by then, as an
installed package's are. Machines differ and are shared, so every
figure stands beside a floor measured in the same minute: Python that does nothing, and the launcher
that only lists. The search is timed inside this process, without reading of files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import spent
from launcher.cluster.profile import list_profiles, load_profile
from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.models.find import shape_of
from launcher.plan.make import make_plan
from launcher.recipe.load import load_recipe

LAUNCHER = Path(sys.executable).parent / "launcher"
RECIPE = "ppo_7b"
REPEATS = 5


@dataclass(frozen=True)
class Timed:
    what: str
    seconds: float
    """Of processor time: the best of `REPEATS`."""
    ratio: float
    """Over `python -c pass` for commands, over planning a single stage for searches."""


def command(*words: str, compiled: str) -> float:
    """User and system time of one process, the best of `REPEATS`. `compiled`: where modules are
    kept once they are compiled, which the first run does."""
    env = spent.compiled(compiled)

    def once() -> object:
        return subprocess.run(words, check=True, capture_output=True, env=env)

    return min(spent.by_commands(once).processor for _ in range(REPEATS))


def inside(work: Callable[[], object]) -> float:
    """Processor time of `work` in this process, the best of `REPEATS`."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def eight_partitions() -> Cluster:
    """Four GPU types, each with two partitions of 16 nodes."""
    types = {"a100_40gb": 8, "a100_80gb": 8, "h100_80gb": 8, "l40s": 4}
    partitions = tuple(
        Partition(
            f"{gpu}-{name}",
            (NodeGroup(nodes=16, cpus=128, memory_gib=1000.0, gpu=gpu, gpus=count),),
            max_time_minutes=2880,
            preemptible=name == "spare",
        )
        for gpu, count in types.items()
        for name in ("own", "spare")
    )
    memory = {"a100_40gb": 39.4, "a100_80gb": 79.1, "h100_80gb": 79.1, "l40s": 44.3}
    gpus = {name: Gpu(memory[name], price=1 + i) for i, name in enumerate(types)}
    return Cluster("eight", partitions, gpus=gpus, interconnect="infiniband")


def measure() -> list[Timed]:
    """All figures, floors first."""
    with tempfile.TemporaryDirectory() as compiled:
        return [*_commands(compiled), *_searches()]


def _commands(compiled: str) -> list[Timed]:
    floor = command(sys.executable, "-c", "pass", compiled=compiled)
    found = [Timed("python -c pass", floor, 1.0)]
    words = {"launcher list": ("list",)}
    for profile in list_profiles():
        overrides = ("dtype=float16",) if profile == "v100_32" else ()
        given = ("plan", RECIPE, *overrides, "--cluster", profile)
        words[f"launcher plan {RECIPE} --cluster {profile}"] = given
    for what, given in words.items():
        seconds = command(str(LAUNCHER), *given, compiled=compiled)
        found.append(Timed(what, seconds, seconds / floor))
    return found


def _searches() -> list[Timed]:
    def search(name: str, cluster: Cluster) -> Callable[[], object]:
        recipe = load_recipe(name)
        return lambda: make_plan(recipe, cluster, shape_of, trl_version="1.16.0")

    single = inside(search("sft_0.5b", load_profile("a100_40")))
    found = [Timed("search of sft_0.5b on a100_40", single, 1.0)]
    for name, cluster in (
        ("ppo_7b", load_profile("mixed")),
        ("ppo_72b", eight_partitions()),
    ):
        seconds = inside(search(name, cluster))
        found.append(Timed(f"search of {name} on {cluster.name}", seconds, seconds / single))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    found = measure()
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    for each in found:
        print(f"{each.what:<46} {each.seconds * 1000:7.0f} ms  {each.ratio:6.1f} ×")


if __name__ == "__main__":
    main()
