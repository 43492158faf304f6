"""A launcher that dies, many at once, and an sbatch that says something else than it did."""

from __future__ import annotations

import json
import subprocess
import time

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.kinds import shims
from tests.faults.scenes import SHORT
from tests.faults.site import until

_CHANGES = ["open", "os.rename", "os.mkdir", "os.link", "os.remove", "subprocess.Popen"]


def one_chain(case: Case) -> None:
    """Every stage has one job in the queue, or is complete. Raises Lost."""
    out = case.site.slurm("squeue", "--noheader", "--format=%A|%k", check=False)
    tags = [line.split("|", 1)[1] for line in out.splitlines() if "launcher:" in line]
    stages = [tag.split(":")[2] for tag in tags if tag.split(":")[1] == case.root.root.name]
    waiting = [name for name in case.scene.stages if not case.complete(name)]
    if sorted(set(stages)) != sorted(stages) or not set(waiting) <= set(stages):
        raise Lost(f"the queue has jobs of {stages}, of {waiting} one each was wanted")


@fault("the launcher is killed between two changes of a submission", SHORT, end="next command",
       redo=0, quick=True)  # fmt: skip
def launcher(case: Case) -> None:
    case.hook(
        module="launcher.cli.main",
        events=_CHANGES,
        path="",
        nth=case.rng.randint(1, 400),
        do="kill",
        after_s=case.rng.choice([0.0, case.rng.uniform(0, 0.08)]),
    )
    rules = case.folder / "launcher.json"
    rules.write_text(json.dumps(case.rules))
    case.rules.clear()
    path = case.recipe()
    said = case.site.call("submit", path, "--json", env={"FAULT_HOOK": str(rules)})
    marks = case.marks()
    if said.code != -9 or not marks:
        raise Missed(f"submit exited {said.code}")
    if processes.started(marks[0]["pid"]) is not None:
        raise Missed("the launcher lives")
    event, paths = marks[0]["event"], marks[0]["paths"]
    case.hit(f"launcher {marks[0]['pid']} killed at {event} {paths[-1:]}")
    again = case.again()
    if again.code != 0:
        raise Lost(f"the same command exited {again.code}: {again.err.strip()[-300:]}")
    one_chain(case)


@fault("eight launchers at once", SHORT, redo=0)
def many(case: Case) -> None:
    path = case.recipe()
    started: list[subprocess.Popen[str]] = []
    for _ in range(8):
        started.append(case.site.start("submit", path, "--json"))
        time.sleep(case.rng.uniform(0, 0.15))
    names = set()
    for process in started:
        out, err = process.communicate(timeout=300)
        if process.returncode != 0:
            raise Lost(f"a launcher exited {process.returncode}: {err.strip()[-300:]}")
        names.add(json.loads(out)["data"]["run"])
    if len(names) != 1:
        raise Lost(f"there are {len(names)} runs")
    case.adopt(names.pop())
    case.hit("eight launchers ended well with one run")
    one_chain(case)
    if len(case.jobs()) != len(case.scene.stages):
        raise Lost(f"{len(case.jobs())} jobs for {len(case.scene.stages)} stages")


@fault("sbatch times out though the job was accepted", SHORT, end="next command", redo=0)
def timed_out(case: Case) -> None:
    which = case.rng.randint(1, len(case.scene.stages))
    env = shims.sbatch(case, f"""
        if [ "$n" = {which} ]; then
            "$real" "$@" > "$here/accepted"
            sleep {case.rng.uniform(0, 2):.2f}
            echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv' >&2
            exit 1
        fi
    """)  # fmt: skip
    said = case.site.call("submit", case.recipe(), "--json", env=env)
    accepted = case.folder / "accepted"
    if not accepted.exists() or not accepted.read_text().strip():
        raise Missed(f"no job was accepted: {said.err[-200:]}")
    job = accepted.read_text().split()[-1]
    case.hit(f"sbatch {which} said that it failed, job {job} was accepted; exit {said.code}")
    again = case.again()
    if again.code != 0:
        raise Lost(f"the same command exited {again.code}: {again.err.strip()[-300:]}")
    one_chain(case)
    if job not in case.jobs():
        raise Lost(f"job {job} was not adopted")


@fault("a limit is hit on the second sbatch", SHORT, end="next command", redo=0)
def limit(case: Case) -> None:
    which = 2
    env = shims.sbatch(case, f"""
        if [ "$n" = {which} ]; then
            echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2
            echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' \
                '(job submit limit, user'"'"'s size and/or time limits)' >&2
            exit 1
        fi
    """)  # fmt: skip
    said = case.site.call("submit", case.recipe(), "--json", env=env)
    if said.code == 0 or shims.calls(case) < which:
        raise Missed(f"submit exited {said.code} after {shims.calls(case)} sbatch")
    case.hit(f"sbatch {which} refused, submit exited {said.code}")
    time.sleep(case.rng.uniform(0, 5))
    again = case.again()
    if again.code != 0:
        raise Lost(f"the same command exited {again.code}: {again.err.strip()[-300:]}")
    one_chain(case)


@fault("a user's scancel", SHORT, end="next command", redo=1)
def scancel(case: Case) -> None:
    case.submit()
    step = case.until_step(case.draw_step(1, 9))
    job = case.job()
    with case.halted():
        case.site.slurm("scancel", job)
    until(lambda: not case.trainers(), "the trainer to end", 120)
    time.sleep(case.rng.uniform(2, 8))
    state = case.status()["stages"][0]["state"]
    if state != "cancelled" or case.trainers():
        raise Lost(f"after scancel the stage is {state}")
    case.hit(f"job {job} cancelled by its user at step {step}, and stays so")
    said = case.site.call("resume", case.root.root.name)
    if said.code != 0:
        raise Lost(f"resume exited {said.code}: {said.err.strip()[-300:]}")
