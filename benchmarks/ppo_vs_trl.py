"""PPO here against TRL's last PPO trainer: final reward and samples a second on the same task.

    python benchmarks/ppo_vs_trl.py [--seeds 3] [--add] [--json] [--save] [--environment FOLDER]

TRL had a PPO trainer up to 1.12.0. It is installed with pip, at the versions of `constraints.txt`
for all else, into a virtual environment in a temporary folder (or in FOLDER, which stays and is
used again). Both sides train the same tiny policy with the same reward, value model, prompts,
settings and seeds, one after the other, each in a process of its own with one thread; what counts
is the training alone, without loading. The final reward of both is the mean score that the reward
model gives to what their saved policies then write (see `benchmarks/ppo/task.py`). Our
side runs twice: with a value model of its own, as TRL has it, and with our default, a head on the
policy's trunk.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ppo_vs_trl.jsonl"
TRL = "1.12.0"
SETTINGS: Mapping[str, Any] = {
    "batch": 64,
    "rollouts": 40,
    "ppo_epochs": 4,
    "length": 32,
    "learning_rate": 5e-3,
    "kl_coef": 0.01,
}
"""Completions of a rollout, rollouts, passes over each, tokens of the longest completion, …"""
SIDES = ("trl", "ours", "ours, value head")
SCORED = 20
"""Completions of each prompt that the final reward is the mean of."""


@dataclass(frozen=True)
class Trained:
    """One training of one side."""

    side: str
    seed: int
    reward: float
    """Share of wanted tokens in what the final policy writes, 0 to 1."""
    samples: int
    seconds: float
    """Of the training, by the clock on the wall."""
    processor_seconds: float
    """Of the training, of the process's own; what others do on the machine does not count."""


@dataclass(frozen=True)
class Side:
    """All trainings of one side."""

    side: str
    reward_mean: float
    reward_sd: float
    samples_a_second: float
    samples_a_processor_second: float


def environment(folder: Path) -> Path:
    """The Python of an environment with TRL 1.12.0, made in `folder` unless it is there."""
    python = folder / "bin" / "python"
    ready = folder / f"trl-{TRL}"
    if not ready.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        others = folder / "constraints.txt"
        others.write_text("".join(f"{pin}\n" for pin in pins if not pin.startswith("trl==")))
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
        subprocess.run([*pip, "--constraint", others, "torch==2.13.0", f"trl=={TRL}"], check=True)
        ready.touch()
    return python


def train(side: str, task: Path, seed: int, peer: Path | None) -> Trained:
    """Train one side in a process of its own. Raises `RuntimeError` with its last words."""
    from benchmarks.ppo.task import mean_score

    if side == "trl":
        words = [str(peer), str(ROOT / "benchmarks" / "ppo" / "peer.py")]
    else:
        words = [sys.executable, "-m", "benchmarks.ppo.ours"]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        value = {"ours": ["model"], "ours, value head": ["head"]}.get(side, [])
        done = subprocess.run(
            [*words, str(task), str(out), str(seed), *value],
            cwd=ROOT if side != "trl" else out,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{side} with seed {seed} failed:\n{done.stderr[-3000:]}")
        result = json.loads((out / "result.json").read_text())
        length = json.loads((task / "settings.json").read_text())["length"]
        reward = mean_score(out / "policy", task / "reward", SCORED, length, seed=0)
    return Trained(side=side, seed=seed, reward=reward, **result)


def summary(side: str, trained: Sequence[Trained]) -> Side:
    """Mean and standard deviation over the seeds; samples over the sum of seconds."""
    mine = [one for one in trained if one.side == side]
    rewards = [one.reward for one in mine]
    samples = sum(one.samples for one in mine)
    return Side(
        side=side,
        reward_mean=statistics.fmean(rewards),
        reward_sd=statistics.stdev(rewards) if len(rewards) > 1 else 0.0,
        samples_a_second=samples / sum(one.seconds for one in mine),
        samples_a_processor_second=samples / sum(one.processor_seconds for one in mine),
    )


def versions(peer: Path) -> dict[str, str]:
    """What both sides ran with."""
    names = ("torch", "transformers", "accelerate", "trl")
    ask = f"import importlib.metadata as m; print(*map(m.version, {names!r}))"
    theirs = subprocess.run([peer, "-c", ask], check=True, capture_output=True, text=True)
    found = {f"trl side: {n}": v for n, v in zip(names, theirs.stdout.split(), strict=True)}
    ours = {f"our side: {name}": importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **ours, **found}


def run(
    settings: Mapping[str, Any], seeds: int, peer: Path, before: Sequence[Trained]
) -> dict[str, Any]:
    """Train every side with every seed that `before` lacks, in turns, so that all meet the same
    machine."""
    from benchmarks.ppo import task

    trained = list(before)
    with tempfile.TemporaryDirectory() as name:
        task.write(Path(name), dict(settings))
        for seed in range(1, seeds + 1):
            for side in SIDES:
                if any((one.side, one.seed) == (side, seed) for one in before):
                    continue
                trained.append(train(side, Path(name), seed, peer))
                print(trained[-1], file=sys.stderr, flush=True)
    return result(settings, trained, peer)


def saved(settings: Mapping[str, Any], peer: Path) -> list[Trained]:
    """The trainings of the newest saved result; none where it had other settings or versions."""
    newest = json.loads(RESULTS.read_text(encoding="utf-8").splitlines()[-1])
    if (newest["settings"], newest["versions"]) != (dict(settings), versions(peer)):
        return []
    return [Trained(**one) for one in newest["trained"]]


def result(settings: Mapping[str, Any], trained: Sequence[Trained], peer: Path) -> dict[str, Any]:
    """All figures of a run: what was trained, the sides, and their ratios to TRL's."""
    sides = {side: summary(side, trained) for side in SIDES}
    trl = sides["trl"]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.machine()}, one thread",
        "versions": versions(peer),
        "settings": dict(settings),
        "trained": [asdict(one) for one in trained],
        "sides": [asdict(side) for side in sides.values()],
        "ratio": {
            name: {
                "samples_a_second": side.samples_a_second / trl.samples_a_second,
                "samples_a_processor_second": (
                    side.samples_a_processor_second / trl.samples_a_processor_second
                ),
                "reward": side.reward_mean / trl.reward_mean,
            }
            for name, side in sides.items()
        },
    }


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| side | final reward, mean ± sd | samples/s | ratio | samples/processor s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for side in found["sides"]:
        ratio = found["ratio"][side["side"]]
        lines.append(
            f"| {side['side']} | {side['reward_mean']:.3f} ± {side['reward_sd']:.3f} "
            f"| {side['samples_a_second']:.1f} | {ratio['samples_a_second']:.2f} "
            f"| {side['samples_a_processor_second']:.1f} "
            f"| {ratio['samples_a_processor_second']:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="PPO here against TRL's last PPO trainer.")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each side")
    parser.add_argument("--rollouts", type=int, default=SETTINGS["rollouts"])
    parser.add_argument("--environment", type=Path, help=f"a folder to keep TRL {TRL} in")
    parser.add_argument("--add", action="store_true", help="only seeds that the saved result lacks")
    parser.add_argument("--json", action="store_true", help="print all figures")
    parser.add_argument("--save", action="store_true", help=f"add them to {RESULTS.name}")
    given = parser.parse_args(arguments)
    settings = {**SETTINGS, "rollouts": given.rollouts}
    with tempfile.TemporaryDirectory() as name:
        peer = environment((given.environment or Path(name) / "trl").absolute())
        before = saved(settings, peer) if given.add else []
        found = run(settings, given.seeds, peer, before)
    if given.save:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    print(json.dumps(found, indent=1) if given.json else table(found))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
