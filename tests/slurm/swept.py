"""The commands that are killed: how a run stands before each, and how it must stand at the end."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from launcher.records import journal
from launcher.run.look import look
from tests.faults import site
from tests.faults.processes import TRAINER
from tests.local.machine import processes_of
from tests.slurm.standing import Place, Standing, left_in

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "ppo.yaml"
STAGES = ("first", "second", "third")
PROGRAM = """\
mkdir -p checkpoint-1/optimizer
echo weights of {name} > checkpoint-1/weights
echo its state > checkpoint-1/optimizer/state
touch {home}/{name}.began
while [ -e {home}/{name}.wait ]; do sleep 0.1; done
[ ! -e {home}/{name}.fail ] || exit 7
"""

Check = Callable[[Place, Standing], str]
"""What is wrong, in words; empty: nothing."""


@dataclass(frozen=True)
class Killed:
    """A command that is killed, and what is then to bring the run where it would have been."""

    words: tuple[str, ...]
    """RUN stands for the run's name."""
    then: tuple[tuple[str, ...], ...]
    """The command that follows: the same again, or another that a user would give; in turn."""
    before: Callable[[Place], None]
    """Brings the place to where the command finds it."""
    checks: tuple[Check, ...]
    lasts: bool = True
    """Whether the place can be put back: nothing of it runs."""


def submit(place: Place) -> None:
    """There is no run."""
    place.clear()
    place.take_jobs(start=False)


def half_submitted(place: Place) -> None:
    """A submission was killed when sbatch had just taken the second job."""
    submit(place)
    words = ("submit", str(RECIPE), "--yes")
    calls = place.launcher.calls(*words)
    place.clear()
    (link,) = [c for c in calls if c.name == "link" and c.where.endswith("000005.json")]
    assert place.launcher.kill(link, *words)
    assert len(place.jobs()) == 2


def chain(place: Place, *, wait: str = "", fail: str = "") -> None:
    """A chain of programs is submitted: `wait` does not end, `fail` fails."""
    place.clear()
    place.take_jobs(start=True)
    stages = {}
    for number, name in enumerate(STAGES):
        (place.home / f"{name}.began").unlink(missing_ok=True)
        program = place.home / f"{name}.sh"
        program.write_text(PROGRAM.format(name=name, home=place.home))
        stages[name] = {"method": "command", "command": ["bash", str(program)]}
        if number:
            stages[name]["needs"] = [STAGES[number - 1]]
    resources = {"gpus": 1, "time": "15m"}
    recipe = {"launcher": 1, "name": "programs", "resources": resources, "stages": stages}
    (place.home / "programs.yaml").write_text(yaml.safe_dump(recipe))
    for path in (*place.home.glob("*.wait"), *place.home.glob("*.fail")):
        path.unlink()
    if wait:
        (place.home / f"{wait}.wait").touch()
    if fail:
        (place.home / f"{fail}.fail").touch()
    assert place.launcher.run("submit", str(place.home / "programs.yaml"), "--yes") == 0


def failed(place: Place) -> None:
    """The first stage is complete, the second has failed, the third was taken out for that."""
    chain(place, fail="second")
    place.until(lambda: not place.jobs(), "the chain to end")
    place.take_jobs(start=False)


def running(place: Place) -> None:
    """The first stage runs, the others wait for it."""
    chain(place, wait="first")
    place.until((place.home / "first.began").exists, "the program")
    place.take_jobs(start=False)


def lost(place: Place) -> None:
    """Every process of the first stage was killed, its script before them; the others wait."""
    running(place)
    (job,) = [job_id for job_id, job in place.jobs().items() if job.stage == "first"]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"/job{int(job):05d}/slurm_script" in path.read_bytes().decode(errors="replace"):
                os.kill(int(path.parent.name), signal.SIGKILL)
    for pid in processes_of(place.run.root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    place.until(lambda: job not in place.jobs(), "the end of the job")


def grown(place: Place) -> None:
    """The first stage ran out of memory, and its next rung asks for more GPUs. Jobs do not act by
    themselves here, so that this waits for the command."""
    place.clear()
    place.take_jobs(start=True)
    profile = place.home / "profile.yaml"
    python = json.dumps(str(site.python(place.home / "python")))
    shipped = (site.ROOT / "slurm" / "clusters" / "dev.yaml").read_text()
    profile.write_text(f"{shipped}python: {python}\nnodes_may_submit: false\n")
    for path in place.home.glob("exhausted*"):
        path.unlink()
    hook = place.home / "hook.json"
    rule = {"events": ["open"], "path": r"metrics\.jsonl", "do": "exhaust", "module": TRAINER}
    hook.write_text(json.dumps([{**rule, "mark": str(place.home / "exhausted")}]))
    pinned = {"micro_batch": 8, "gradient_checkpointing": False, "zero_stage": 2, "offload": "none"}
    recipe = {
        "launcher": 1,
        "name": "grown",
        "extends": [str(RECIPE.with_name("sft.yaml"))],
        "resources": {"gpus": None},
        "stages": {
            "sft": {"resources": pinned, "env": {"FAULT_HOOK": str(hook)}},
            "next": {"method": "command", "command": ["true"], "needs": ["sft"]},
        },
    }
    path = place.home / "grown.yaml"
    path.write_text(yaml.safe_dump(recipe))
    words = ("submit", str(path), "--yes", "--cluster", str(profile))
    assert place.launcher.run(*words) == 0, place.launcher.said
    place.until(lambda: "sft" not in {job.stage for job in place.jobs().values()}, "its end", 600)
    place.take_jobs(start=False)


def one_chain(place: Place, _: Standing) -> str:
    """Each stage is complete, or has one job, which the journal means and which waits for those
    that it needs; no token was sent twice."""
    # What was cancelled, and what its script's own `advance` does at its end.
    place.until(lambda: all(j.state != "COMPLETING" for j in place.jobs().values()), "an end")
    events = journal.read(place.run.journal)
    known = journal.submissions(events)
    jobs = place.jobs()
    sent = Counter(event.token for event in events if event.kind == "intent")
    if any(times > 1 for times in sent.values()):
        return "a token was sent twice"
    own = {job.stage: job_id for job_id, job in jobs.items()}
    if len(own) != len(jobs):
        return f"two jobs of one stage: {jobs}"
    for stage in place.plan.stages:
        done = place.run.stage(stage.name).complete.exists()
        if done or stage.name not in own:
            if done == (stage.name in own):
                return (
                    f"{stage.name} is {'complete and' if done else 'neither complete nor'} queued"
                )
            continue
        job, meant = jobs[own[stage.name]], known[stage.name]
        if (meant.token, meant.job_id) != (job.token, own[stage.name]) or meant.cancelled:
            return f"the journal means {meant}, queued is {job}"
        needs = {own[name] for name in stage.stage.needs if name in own}
        if job.needs != needs:
            return f"{stage.name} waits for {job.needs}, not for {needs}"
    return ""


def nothing_lost(place: Place, before: Standing) -> str:
    """What each stage had left lies where it lay, or was put aside, as a whole."""
    for stage in place.plan.stages:
        root = place.run.stage(stage.name).root
        had = before.stage_files(stage.name)
        aside = [left_in(path) for path in root.glob("old-*")] if root.is_dir() else []
        if had and had.items() <= left_in(root).items() and not any(aside):
            continue
        if had and ([each for each in aside if each] != [had] or left_in(root)):
            return (
                f"of {stage.name} was left {sorted(had)}, there is {left_in(root).keys()}, {aside}"
            )
        if any(not each for each in aside):
            return f"{stage.name} has an empty folder of what it had left"
    return ""


def stays(*stages: str) -> Check:
    """These are complete, as they were."""

    def check(place: Place, before: Standing) -> str:
        for stage in stages:
            if left_in(place.run.stage(stage).root) != before.stage_files(stage):
                return f"{stage} is not as it was"
        return ""

    return check


def run_again(*stages: str) -> Check:
    """These are to be run again."""

    def check(place: Place, _: Standing) -> str:
        own = {job.stage for job in place.jobs().values()}
        return "" if own >= set(stages) else f"queued are {own} alone"

    return check


def on_the_next_rung(place: Place, _: Standing) -> str:
    """The first stage is asked for with more GPUs."""
    sent = journal.submissions(journal.read(place.run.journal))["sft"]
    asked = place.slurm("squeue", "--noheader", f"--jobs={sent.job_id}", "--format=%b").strip()
    return "" if sent.rung == 1 and asked.endswith(":2") else f"rung {sent.rung}, {asked}"


def no_more(place: Place, _: Standing) -> str:
    """No job is left once those that ran have ended, and none comes unless a person resumes."""
    place.until(lambda: not place.jobs(), "the jobs to end")
    place.take_jobs(start=True)
    for words, code in (("advance", 0), ("submit", 2)):
        what = place.run.root.name if words == "advance" else str(place.home / "programs.yaml")
        if place.launcher.run(words, what) != code or place.jobs():
            return f"{words} acts on it: {place.launcher.said}"
    states = {stage.name: stage.state for stage in look(place.run, place.plan).stages}
    return "" if set(states.values()) == {"cancelled"} else str(states)


CANCEL = ("cancel", "RUN")
RESUME = ("resume", "RUN")
FROM = ("resume", "RUN", "--from", "first")
ADVANCE = ("advance", "RUN")
SUBMIT = ("submit", str(RECIPE), "--yes")

KILLED: Mapping[str, Killed] = {
    "submit": Killed(SUBMIT, (SUBMIT,), submit, (one_chain,)),
    "submit again": Killed(SUBMIT, (SUBMIT,), half_submitted, (one_chain,)),
    "resume": Killed(
        RESUME, (RESUME, ("submit", "RECIPE")), failed, (one_chain, nothing_lost, stays("first"))
    ),
    "resume --from": Killed(
        FROM, (FROM,), failed, (one_chain, nothing_lost, run_again("first", "second", "third"))
    ),
    # Another command goes on where it was killed, or with what there was before.
    "resume --from, then resume": Killed(FROM, (RESUME,), failed, (one_chain, nothing_lost)),
    "advance": Killed(
        ADVANCE, (ADVANCE, ("submit", "RECIPE")), lost, (one_chain, nothing_lost)
    ),
    "advance, more GPUs": Killed(
        ADVANCE, (ADVANCE, RESUME), grown, (one_chain, nothing_lost, on_the_next_rung)
    ),
    "cancel": Killed(CANCEL, (CANCEL,), running, (no_more,), lasts=False),
    "cancel, then resume": Killed(CANCEL, (RESUME,), running, (one_chain,), lasts=False),
}  # fmt: skip
