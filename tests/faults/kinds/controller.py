"""The controller dies, is away, forgets; the accounting is down or was never there."""

from __future__ import annotations

import shutil
import time

from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.kinds import shims
from tests.faults.scenes import CHAIN, SFT, SHORT
from tests.faults.site import until


def _once_up(case: Case) -> None:
    case.site.daemon("start", "slurmctld")
    until(case.site.answers, "the controller answers", 60)


def _same_command(case: Case, tries: int = 10) -> None:
    """Call the same `submit`, as long as it says that Slurm is silent. Raises Lost."""
    for _ in range(tries):
        said = case.again()
        if said.code != 4:
            break
        time.sleep(2)
    if said.code != 0:
        raise Lost(f"the same command exited {said.code}: {said.err.strip()[-300:]}")


@fault("slurmctld is killed 0 to 6 s after an sbatch", SHORT, cluster="own", end="next command",
       quick=True)  # fmt: skip
def after_sbatch(case: Case) -> None:
    """Within five seconds the job is lost, and its id goes to a later one."""
    path = case.recipe()
    which = case.rng.randint(1, len(case.scene.stages))
    after_s = case.rng.uniform(0, 6)
    env = shims.sbatch(case, f"""
        if [ "$n" = {which} ]; then
            "$real" "$@"; code=$?
            sleep {after_s:.2f}
            {shims.daemon(case, "kill", "slurmctld")} >> "$here/killed"
            exit $code
        fi
    """)  # fmt: skip
    said = case.site.call("submit", path, "--json", env=env)
    killed = case.folder / "killed"
    if not killed.exists():
        raise Missed(f"no sbatch came that far: {said.err[-200:]}")
    case.hit(
        f"slurmctld {killed.read_text().strip()} killed {after_s:.1f} s after sbatch {which},"
        f" submit exited {said.code}"
    )
    time.sleep(case.rng.uniform(0, 2))
    _once_up(case)
    _same_command(case)


@fault("slurmctld is away for a minute", SHORT, cluster="own", redo=0)
def away(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    pid = case.site.daemon("kill", "slurmctld")
    began = time.monotonic()
    for_s = case.rng.uniform(30, 60)
    case.hit(f"slurmctld {pid} killed at step {step}, away for {for_s:.0f} s")
    while time.monotonic() - began < for_s:
        states = {stage["state"] for stage in case.status()["stages"]}
        if not states <= {"unknown", "complete"}:
            raise Lost(f"status says {states} while the controller is away")
        time.sleep(5)
    _once_up(case)


@fault("the controller's state is wiped", SHORT, cluster="own", end="next command",
       patience_s=600)  # fmt: skip
def wiped(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    case.site.daemon("kill", "slurmctld")
    state = case.site.state / "state"
    for path in state.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    time.sleep(case.rng.uniform(0, 3))
    _once_up(case)
    if case.queued():
        raise Missed("the controller knows the jobs")
    case.hit(f"no job of the run is known any more, at step {step}")
    # What still runs is ended by Slurm, or goes on; no second trainer may begin beside it.
    _same_command(case)


@fault("Slurm forgets ended jobs at once, and there is no accounting", CHAIN,
       cluster="forgetful", redo=0, points=5)  # fmt: skip
def forgetful(case: Case) -> None:
    case.submit()
    first = case.job("sft")
    case.until(lambda: case.complete("sft"), "the first stage")
    case.until(lambda: not case.show(first), "Slurm to forget the first job", 60)
    time.sleep(case.rng.uniform(0, 5))
    case.hit(f"job {first} is unknown to Slurm")
    states = [stage["state"] for stage in case.status()["stages"]]
    if states[0] != "complete":
        raise Lost(f"status says {states}")
    said = case.again()
    if said.code != 0:
        raise Lost(f"submit exited {said.code}: {said.err.strip()[-300:]}")


@fault("the accounting goes down", SHORT, cluster="accounting", redo=0)
def accounting(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    pids = [case.site.daemon("kill", name) for name in ("slurmdbd", "mariadbd")]
    case.hit(f"slurmdbd and mariadbd {pids} killed at step {step}")
    case.status()
    said = case.again()
    if said.code != 0:
        raise Lost(f"submit exited {said.code}: {said.err.strip()[-300:]}")


@fault("Slurm holds the job after a requeue", SFT, end="next command", redo=1)
def held(case: Case) -> None:
    """As after a start that failed: back in the queue, and held by Slurm, not by the user. The
    commands that act release it."""
    case.submit()
    job = case.job()
    step = case.until_step(case.draw_step())
    with case.halted():
        case.site.slurm("scontrol", "requeue", job)
        case.until(lambda: case.queued()[job].startswith("PENDING"), "the requeue", 60)
        case.site.slurm("scontrol", "hold", job)
    case.until(lambda: any("Held" in word for word in case.queued().values()), "the hold", 60)
    case.hit(f"job {job} held at step {step}: {case.queued()[job]}")
    said = case.site.call("advance", case.root.root.name)
    if said.code != 0:
        raise Lost(f"advance exited {said.code}: {said.err.strip()[-300:]}")
