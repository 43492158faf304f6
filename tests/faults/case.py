"""One run that a fault is to hit: what faults do to it, and how they know that it hit."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launcher.records.paths import RunPaths, StagePaths
from tests.faults import processes
from tests.faults.fault import Lost, Missed
from tests.faults.processes import Process
from tests.faults.scenes import TINY, Scene
from tests.faults.site import Said, Site, until
from tests.faults.watch import Watch

LOAD_S = 600
"""What a loaded machine may take from a submission to a first step."""
LOOK_S = 20
"""Between two looks at a run by its `status`, which costs a second of a processor."""
BAD = ("failed", "blocked", "cancelled", "absent")


@dataclass
class Case:
    site: Site
    scene: Scene
    rng: random.Random
    name: str
    """Of the recipe; no other case has it."""
    proofs: list[str] = field(default_factory=list)
    """What shows that the fault hit, one for each hit."""
    rules: list[dict[str, Any]] = field(default_factory=list)
    run: RunPaths | None = None
    watch: Watch | None = None
    unlogged: int = 0
    """Steps that the log may lack: the fault was that a line could not be written."""
    ended_at: float = 0
    """When the run was complete, in seconds since the epoch."""
    began_at: float = field(default_factory=time.time)
    commands: int = 0
    """How often the same command was given again because the chain had stopped."""
    _asked: float = 0

    # Before the run

    @property
    def folder(self) -> Path:
        """Where the case's own files lie: recipe, hook, marks."""
        path = self.site.home / "cases" / self.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def mark(self) -> Path:
        return self.folder / "mark"

    def hook(self, **rule: Any) -> None:
        """Let the trainers (or `module`) meet a fault; see `tests.faults.hook`."""
        self.rules.append({"module": processes.TRAINER, "mark": str(self.mark), **rule})

    def recipe(self, change: Mapping[str, Any] | None = None, at: str = "") -> Path:
        """The case's recipe on disk; `change`: `{"train": {...}, "env": {...}}` of the stage `at`,
        the target if not said."""
        rewards = self.folder / "rewards.py"
        if not rewards.exists():
            rewards.write_text((TINY / "rewards.py").read_text())
        document = self.scene.recipe(self.name, rewards)
        target = document["stages"][at or self.scene.target]
        for key, value in (change or {}).items():
            target[key] = {**target.get(key, {}), **value} if isinstance(value, dict) else value
        if self.rules:
            rules = self.folder / "hook.json"
            rules.write_text(json.dumps(self.rules))
            target["env"] = {**target.get("env", {}), "FAULT_HOOK": str(rules)}
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def rewards(self, more: str) -> None:
        """The score function's file, with more at its end."""
        path = self.folder / "rewards.py"
        path.write_text((TINY / "rewards.py").read_text() + more)

    def submit(self, change: Mapping[str, Any] | None = None, at: str = "") -> None:
        """Submit the recipe, with the hooks there are. Raises Lost."""
        self.adopt(str(self.site.data("submit", self.recipe(change, at))["run"]))

    def adopt(self, name: str) -> None:
        """The run is that one; from now on its trainers are watched."""
        self.run = RunPaths(self.site.runs / name)
        if self.watch is None:
            self.watch = Watch(self.run.root)
            self.watch.__enter__()

    def close(self) -> None:
        if self.watch is not None:
            self.watch.__exit__(None, None, None)

    # As it goes

    def hit(self, proof: str) -> None:
        """The fault has hit, and this shows it."""
        self.proofs.append(proof)

    @property
    def root(self) -> RunPaths:
        assert self.run is not None, "the case has no run yet"
        return self.run

    @property
    def stage(self) -> StagePaths:
        """The files of the stage that is disturbed."""
        return self.root.stage(self.scene.target)

    def complete(self, stage: str | None = None) -> bool:
        names = [stage] if stage else list(self.scene.stages)
        return all(self.root.stage(name).complete.is_file() for name in names)

    def steps(self, stage: str | None = None) -> list[int]:
        """The steps that the stage logged, in the order in which it did them."""
        return [row["step"] for row in self.rows(stage)]

    def rows(self, stage: str | None = None) -> list[dict[str, Any]]:
        path = self.root.stage(stage or self.scene.target).metrics
        if not path.exists():
            return []
        rows = []
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "loss" in row and "learning_rate" in row:
                rows.append(row)
        return rows

    def step(self) -> int:
        """The step that was done last; 0: none yet."""
        steps = self.steps()
        return steps[-1] if steps else 0

    def phase(self) -> str:
        try:
            return str(json.loads(self.stage.progress.read_text())["phase"])
        except (OSError, ValueError):
            return ""

    def draw_step(self, first: int = 1, last: int | None = None) -> int:
        return self.rng.randint(first, self.scene.steps - 3 if last is None else last)

    def until_step(self, step: int, timeout_s: float = LOAD_S) -> int:
        """Return once the disturbed stage has done `step`, and the step that it is at.

        Raises Missed where it ended before that was seen.
        """
        self.until(lambda: self.step() >= step, f"step {step}", timeout_s)
        if self.complete(self.scene.target):
            raise Missed("the stage ended first")
        return self.step()

    def until(self, condition: Any, what: str, timeout_s: float = LOAD_S) -> None:
        """Return once `condition` holds. Raises Lost when the run has stopped for good first."""
        deadline, asked = time.monotonic() + timeout_s, time.monotonic()
        wrong = 0
        while not condition():
            now = time.monotonic()
            if now > deadline:
                raise Lost(f"still not after {timeout_s:g} s: {what}; {self.told()}")
            if now - asked > LOOK_S:
                asked = now
                # What acts by itself may need a moment after a failure.
                wrong = wrong + 1 if self.in_trouble() else 0
                if wrong > 1:
                    raise Lost(self.told())
            time.sleep(0.02)

    def held(self) -> bool:
        """Whether Slurm holds a job of the run until somebody releases it."""
        return any("held" in word.lower() for word in self.queued().values())

    def in_trouble(self) -> bool:
        """Whether `status` says of a stage that it has stopped."""
        return any(stage["state"] in BAD for stage in self.status()["stages"])

    def status(self) -> Any:
        return self.site.data("status", self.root.root.name)

    def told(self) -> str:
        """The run's stages as `status` tells of them, in one line."""
        try:
            stages = self.status()["stages"]
        except Lost as lost:
            return str(lost)
        return "; ".join(f"{s['name']} {s['state']} {s['reason']}".strip() for s in stages)

    def trainers(self) -> list[Process]:
        return [
            each
            for each in processes.of_run(self.root.root, processes.TRAINER)
            if each.stage == self.scene.target
        ]

    def supervisors(self) -> list[Process]:
        return [
            each
            for each in processes.of_run(self.root.root, processes.SUPERVISOR)
            if each.stage == self.scene.target
        ]

    def trainer(self, rank: int = 0) -> Process:
        """The trainer of a rank. Raises Missed where there is none now."""
        for each in self.trainers():
            if each.rank == rank:
                return each
        raise Missed(f"no trainer of rank {rank}")

    def until_trainer(self, rank: int = 0) -> Process:
        self.until(lambda: any(t.rank == rank for t in self.trainers()), "a trainer")
        return self.trainer(rank)

    @contextmanager
    def halted(self) -> Iterator[list[Process]]:
        """The trainers stand still meanwhile, so that the stage does not end before a fault comes
        that takes its time. Raises Missed where there is none."""
        found = self.trainers()
        if not found:
            raise Missed("no trainer is at work")
        for each in found:
            processes.send(each, signal.SIGSTOP)
        try:
            yield found
        finally:
            for each in found:
                if each.alive:
                    processes.send(each, signal.SIGCONT)

    def job(self, stage: str | None = None) -> str:
        """The id of the stage's job. Raises Missed where the journal names none."""
        wanted = stage or self.scene.target
        for event in reversed(self.events()):
            if event.get("stage") == wanted and event.get("job_id"):
                return str(event["job_id"])
        raise Missed(f"no job of {wanted}")

    def events(self) -> list[dict[str, Any]]:
        """The run's journal, the oldest event first."""
        return [json.loads(p.read_text()) for p in sorted(self.root.journal.glob("[0-9]*.json"))]

    def attempts(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The stage's receipts, the oldest first."""
        folder = self.root.stage(stage or self.scene.target).attempts
        paths = sorted(
            (p for p in folder.glob("[0-9]*.json") if p.stem.isdigit()), key=lambda p: int(p.stem)
        )
        return [json.loads(path.read_text()) for path in paths]

    def committed(self) -> list[Path]:
        """The checkpoints that bear a COMMIT.json, the oldest first. Raises Missed: none does."""
        found = [
            path
            for path in self.stage.checkpoints.glob("checkpoint-*")
            if (path / "COMMIT.json").is_file() and path.name.removeprefix("checkpoint-").isdigit()
        ]
        if not found:
            raise Missed("there is no committed checkpoint")
        return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))

    def show(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`; those whose value holds a space are cut."""
        text = self.site.slurm("scontrol", "show", "job", "--oneliner", job, check=False)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def restarts(self, job: str) -> int:
        return int(self.show(job).get("Restarts", "-1"))

    def queued(self) -> dict[str, str]:
        """Job id → state, of the jobs of this run that wait or run."""
        out = self.site.slurm("squeue", "--noheader", "--format=%A|%T|%r|%k", check=False)
        found = {}
        for line in out.splitlines():
            job, state, reason, tag = line.split("|", 3)
            if self.run is not None and tag.startswith(f"launcher:{self.root.root.name}:"):
                found[job] = f"{state} {reason}"
        return found

    def marks(self) -> list[dict[str, Any]]:
        """What the hook left, the first first."""
        found = sorted(
            self.folder.glob("mark.*"), key=lambda p: int(p.suffix[1:])
        )  # fmt: skip
        return [json.loads(p.read_text() or "{}") for p in found]

    def until_marked(self, times: int = 1) -> list[dict[str, Any]]:
        """Return once the hook has acted so often. Raises Missed where the run ended first."""
        self.until(lambda: len(self.marks()) >= times or self.complete(), "the hook to act")
        if len(self.marks()) < times:
            raise Missed("the run ended before the hook acted")
        return self.marks()

    # Afterwards

    def again(self) -> Said:
        """The same `submit` once more."""
        said = self.site.call("submit", self.folder / "recipe.yaml", "--json")
        if said.code == 0 and self.run is None:
            self.adopt(json.loads(said.out)["data"]["run"])
        return said

    def finish(self, timeout_s: float, commands: int = 0) -> None:
        """Return once every stage is COMPLETE. Raises Lost.

        The same command is given up to `commands` times, each time that the chain has stopped.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.until(
                    lambda helped=commands > 0: self.complete() or (helped and self._stopped()),
                    "every stage to be complete",
                    deadline - time.monotonic(),
                )
            except Lost:
                if commands == 0 or time.monotonic() > deadline:
                    raise
            if self.complete():
                break
            commands -= 1
            said = self.again()
            if said.code not in (0, 4):
                raise Lost(f"the same command exited {said.code}: {said.err.strip()[-300:]}")
            self.commands += 1
        self.ended_at = max(
            json.loads(self.root.stage(name).complete.read_text())["finished"]
            for name in self.scene.stages
        )

    def until_failed(self, pattern: str, timeout_s: float = LOAD_S) -> None:
        """Return once `status` says that a stage failed, for a reason that the pattern is in.

        Raises Lost where it ends otherwise, or a job is left in the queue.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            stages = self.status()["stages"]
            failed = [s for s in stages if s["state"] == "failed"]
            if failed:
                break
            if self.complete() or time.monotonic() > deadline:
                raise Lost(f"did not fail: {self.told()}")
            time.sleep(1)
        if not re.search(pattern, failed[0]["reason"] or ""):
            raise Lost(f"failed for another reason: {failed[0]['reason']}")
        self.until_gone()

    def until_gone(self, timeout_s: float = 60) -> None:
        """Return once no job of the run is in the queue. Raises Lost."""
        until(lambda: not self.queued(), f"no job is left in the queue: {self.queued()}", timeout_s)

    def until_back_or_again(self, patience_s: float = 20) -> None:
        """Give whoever acts by itself some time; then call the same command.

        Raises Lost where the chain neither goes on nor can be gone on with.
        """
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self.trainers() or self.complete():
                return
            time.sleep(0.5)
        said = self.again()
        if said.code == 2:
            said = self.site.call("resume", self.root.root.name)
        if said.code != 0:
            raise Lost(f"the same command exited {said.code}: {said.err.strip()[-300:]}")

    def _stopped(self) -> bool:
        """Whether Slurm holds a job; asked now and then."""
        now = time.monotonic()
        if now - self._asked < LOOK_S:
            return False
        self._asked = now
        return self.held()

    def jobs(self) -> set[str]:
        """Every job that was submitted or left a receipt."""
        named = {str(e["job_id"]) for e in self.events() if e.get("job_id")}
        for name in self.scene.stages:
            named |= {str(each["job_id"]) for each in self.attempts(name)}
        return named


def files_below(folder: Path, pattern: str) -> Sequence[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())
