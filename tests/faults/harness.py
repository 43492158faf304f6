"""Lets a fault hit at a seeded point, and says what came of it."""

from __future__ import annotations

import random
import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LauncherError
from tests.faults import checks
from tests.faults.case import Case
from tests.faults.fault import Fault, Lost, Missed
from tests.faults.scenes import Scene
from tests.faults.site import Site, site

DRAWS = 6
"""How often a point is drawn anew where the fault did not hit."""

COMMANDS = 3
"""How often somebody may have to call the same command, where a fault waits for one."""


@dataclass(frozen=True)
class Finding:
    """What came of one fault at one point."""

    fault: str
    point: int
    seed: int
    survived: bool
    why: str
    """What was lost; empty where it survived."""
    proof: str
    """What shows that the fault hit; empty: it never did."""
    hits: int
    redone: int
    """Steps done twice, at most, after one interruption."""
    jobs: int
    attempts: int
    weights: bool | None
    """Whether they are the undisturbed run's; None: they need not be, or it never came to that."""
    seconds: float


class Harness:
    """Clusters that are started when first needed, and the undisturbed runs."""

    def __init__(self, home: Path, *, keep: bool = False) -> None:
        self._home, self._keep = home, keep
        self._stack = ExitStack()
        self._sites: dict[str, Site] = {}
        self._references: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def site(self, cluster: str) -> Site:
        if cluster not in self._sites:
            home = self._home / cluster.replace(" ", "-")
            self._sites[cluster] = self._stack.enter_context(site(home, cluster))
        return self._sites[cluster]

    def reference(self, scene: Scene) -> dict[str, str]:
        """The weights of the scene's undisturbed run, which is done once."""
        key = repr((scene.stages, scene.resources.get("gpus"), scene.resources.get("nodes")))
        if key not in self._references:
            case = Case(
                self.site("shared"), scene, random.Random(0), f"plain-{len(self._references)}"
            )
            try:
                case.submit()
                case.finish(900)
                if any(len(case.attempts(name)) != 1 for name in scene.stages):
                    raise Lost("the undisturbed run was disturbed")
                self._references[key] = checks.weights(case.root, scene.trained)
            finally:
                case.close()
        return self._references[key]

    def find(self, fault: Fault, point: int, seed: int) -> Finding:
        """Let `fault` hit at its point number `point`, drawn from `seed`."""
        reference = self.reference(fault.scene) if fault.end != "stays stopped" else {}
        where = self.site(fault.cluster)
        missed = ""
        for draw in range(DRAWS):
            rng = random.Random(f"{seed}/{fault.name}/{point}/{draw}")
            name = re.sub(r"[^a-z0-9]+", "-", fault.name.lower())[:40].strip("-")
            stamp = f"{time.time_ns() // 1_000_000 % 10**9:x}"
            case = Case(where, fault.scene, rng, f"{name}-{point}-{stamp}")
            try:
                finding = self._once(case, fault, point, seed, reference)
            except Missed as error:
                missed = str(error)
            else:
                return finding
            finally:
                self._leave(case, fault)
        return Finding(
            fault.name, point, seed, False, f"it never hit: {missed}", "", 0, 0, 0, 0, None, 0
        )

    def _once(
        self, case: Case, fault: Fault, point: int, seed: int, reference: dict[str, str]
    ) -> Finding:
        began = time.monotonic()
        why, same = "", None
        try:
            fault.inject(case)
            if not case.proofs:
                raise Missed("nothing shows that it hit")
            if fault.end != "stays stopped":
                commands = COMMANDS if fault.end == "next command" else 0
                case.finish(fault.patience_s, commands)
                same = checks.whole(case, fault, reference)
        except Lost as lost:
            why = str(lost)
        except (OSError, ValueError, KeyError, LauncherError) as error:
            why = f"{type(error).__name__}: {error}"
        ran = case.run is not None
        attempts = sum(len(case.attempts(name)) for name in fault.scene.stages) if ran else 0
        return Finding(
            fault=fault.name,
            point=point,
            seed=seed,
            survived=not why,
            why=why[:600],
            proof="; ".join(case.proofs)[:600],
            hits=len(case.proofs),
            redone=checks.redone(case.steps()) if ran else 0,
            jobs=len(case.jobs()) if ran else 0,
            attempts=attempts,
            weights=same,
            seconds=round(time.monotonic() - began, 1),
        )

    def _leave(self, case: Case, fault: Fault) -> None:
        """Leave the cluster as it was found."""
        case.close()
        if case.run is not None:
            case.site.call("cancel", case.run.root.name)
        case.site.slurm("scancel", "--user=root", check=False)
        if fault.cluster != "shared" or fault.group in ("preemption", "submission"):
            case.site.heal()
        if not self._keep or fault.cluster == "small disk":
            shutil.rmtree(case.folder, ignore_errors=True)
            if case.run is not None:
                shutil.rmtree(case.run.root, ignore_errors=True)
