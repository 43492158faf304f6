"""Looking at a run: its files and one query of the scheduler. Nothing here changes anything."""

from __future__ import annotations

from launcher.errors import SchedulerUnavailable
from launcher.plan.types import Plan
from launcher.records import journal
from launcher.records.paths import RunPaths
from launcher.run import local_chain, state
from launcher.scheduler.jobs import Engine, QueuedJob, tag


def engine(plan: Plan) -> Engine | None:
    """The scheduler of the plan's cluster; None: this machine."""
    if plan.cluster.engine == "local":
        return None
    from launcher.scheduler.slurm import SlurmEngine

    return SlurmEngine()


def look(run: RunPaths, plan: Plan) -> state.RunState:
    """How the run stands, in one query of the scheduler."""
    # The journal first: of what it says was submitted by then, the queue must know.
    events = journal.read(run.journal)
    return state.read(run, plan, view(run, plan), events)


def view(run: RunPaths, plan: Plan) -> state.View:
    """What the scheduler says; a silent one is a view too."""
    scheduler = engine(plan)
    if scheduler is None:
        return _local_view(run)
    try:
        return state.View(queue=scheduler.queue())
    except SchedulerUnavailable:
        return state.View(queue=None)


def _local_view(run: RunPaths) -> state.View:
    if local_chain.holder(run) is None:
        return state.View(queue={}, chain_alive=False)
    # The chain runs one stage at a time: the one that it announced last.
    intents: list[journal.Event] = []
    for event in journal.read(run.journal):
        if event.kind == "resumed":
            intents = []
        elif event.kind == "intent":
            intents.append(event)
    if not intents or intents[-1].stage is None or intents[-1].token is None:
        return state.View(queue={}, chain_alive=True)
    key = tag(run.root.name, intents[-1].stage, intents[-1].token)
    job = QueuedJob(job_id="local", tag=key, state="running", word="RUNNING")
    return state.View(queue={key: job}, chain_alive=True)
