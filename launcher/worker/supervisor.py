"""One thin process a task, without torch: it starts the trainer as its child and answers for it.

It checks that this job is the one the journal means and that what the stage builds on is finished
and whole, hands signals on, and ends a trainer that hangs, that does not stop in time, or whose
world has lost a rank. The supervisor of rank 0 leaves the receipts and decides what comes after a
failure: the same again or the next rung of the ladder within this start of the job (a round), the
job back into the queue, or the end. The others do what it says.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from launcher.errors import LauncherError
from launcher.memory.stack import grows
from launcher.plan.document import plan_from_json
from launcher.plan.types import Plan, StagePlan
from launcher.recipe.types import Stage
from launcher.records import (
    attempts,
    checkpoints,
    complete,
    failures,
    files,
    journal,
    rounds,
    serving,
)
from launcher.records.failures import Answer, FailureClass
from launcher.records.paths import RunPaths, StagePaths
from launcher.worker import child, deadlines, diagnosis, network, receipt, scratch, secrets, trust
from launcher.worker.child import Others, Ran
from launcher.worker.outcome import FAILED, STOPPED, SUPERSEDED, USER_ERROR
from launcher.worker.signals import Signals
from launcher.worker.vllm import client, serve

Word = TypeVar("Word", rounds.Opening, rounds.Closing)

POLL_S = child.POLL_S
OPENING_S = 300.0
"""How long the supervisor of rank 0 may take to open a round: nodes of a job do not start together.
"""
CLOSING_S = 60.0
"""How long it may take to close one after this rank's trainer has ended."""
GATHER_S = 30.0
"""How long the others may take to say what became of theirs, once rank 0's has ended."""
REPLACED_S = 1.0
"""How often it looks whether a later start has taken over; a trainer loads for longer."""
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    exit_code: int
    requeue: bool
    """Whether the job should go back into the queue."""


@dataclass(frozen=True)
class _Job:
    """One start of a stage's job, on one rank."""

    paths: RunPaths
    plan: Plan
    planned: StagePlan
    """As the plan stands, the ladder apart."""
    token: str
    job_id: str
    restarts: int
    rank: int
    world: int
    """Trainers."""
    signals: Signals
    deserted: Callable[[], bool]
    began: float
    """Seconds since the epoch."""

    @property
    def stage(self) -> StagePaths:
        return self.paths.stage(self.planned.name)

    @property
    def served(self) -> bool:
        return self.planned.allocation.server_gpus > 0

    @property
    def start(self) -> serving.Start:
        return serving.Start(self.token, self.job_id, self.restarts)

    @property
    def ending(self) -> bool:
        """Whether this start of the job will not last."""
        return self.signals.stop or self.deserted()

    def key(self, number: int) -> str:
        return rounds.key(self.job_id, self.restarts, number)


def supervise(
    run: str,
    stage: str,
    token: str,
    job_id: str,
    deserted: Callable[[], bool],
    restarts: int = 0,
) -> Ended:
    """Run one start of the job of `stage` on this rank, which is read from RANK as torch does.

    `deserted` says whether whoever started this job is gone, so that the job must end too;
    `restarts`: how often the scheduler had started this job before.
    """
    os.umask(0o077)
    signals = Signals()
    signals.install()
    paths = RunPaths(Path(run))
    rank = int(os.environ["RANK"])
    plan = plan_from_json(paths.plan.read_text())
    planned = plan.stage(stage)
    served = planned.allocation.server_gpus > 0
    receipts = attempts.read(paths.stage(stage).attempts)
    if complete.read(paths.stage(stage)) is not None:
        print(f"stage {stage} is complete already", flush=True)
        return Ended(0, requeue=False)
    rung = failures.first_rung(receipts)
    allocation = planned.at(rung).allocation
    # The server's tasks come after the trainers' and are not of their world.
    world = allocation.processes if served else int(os.environ["WORLD_SIZE"])
    job = _Job(
        paths, plan, planned, token, job_id, restarts, rank, world, signals, deserted, time.time()
    )
    refusal = _refusal(job, rung)
    if refusal is not None:
        print(refusal.failure.message if refusal.failure else refusal.outcome, flush=True)
        if rank == 0:
            refused = replace(_new(job, 0, rung), answer="end", ended=time.time(), **vars(refusal))
            attempts.start(job.stage.attempts, refused)
            _refuse(job, rung, refusal.exit_code)
        return Ended(refusal.exit_code, requeue=False)
    if rank >= world:
        return Ended(_serve(job, rung), requeue=False)
    return _lead(job, rung) if rank == 0 else _follow(job)


def _new(job: _Job, number: int, rung: int) -> attempts.Attempt:
    """The receipt of a round that begins."""
    return attempts.Attempt(
        number=0,
        token=job.token,
        job_id=job.job_id,
        host=platform.node(),
        processes=job.world,
        started=time.time(),
        restarts=job.restarts,
        round=number,
        rung=rung,
        began_at=checkpoints.newest_step(job.stage.checkpoints),
    )


# Rank 0


def _lead(job: _Job, rung: int) -> Ended:
    """Round after round, until the stage is done or this start of the job can do no more for it."""
    receipt.close_open(job.stage, job.token)
    given_up = _given_up(job)
    number = 0
    while not given_up:
        _make_way(job, rung)
        begun = attempts.start(job.stage.attempts, _new(job, number, rung))
        key, opening = job.key(number), rounds.Opening(rung, _free_port())
        if job.world > 1:
            rounds.say(rounds.opening_path(job.stage.attempts, key), opening)
        replaced = _Replaced(job, begun)
        ran = _run(job, key, opening, replaced)
        if replaced():
            print("a later start of this job has taken over", flush=True)
            return Ended(SUPERSEDED, requeue=False)
        endings = _gather(job, key, _ending(job, key, ran))
        told = diagnosis.told_class(
            time.time() - job.began,
            job.planned.at(rung).allocation.time_minutes,
            job.planned.at(rung).allocation.signal_lead_s,
        )
        ended, closing, rung, pause_s = _judge(job, begun, endings, told)
        attempts.finish(job.stage.attempts, ended)
        receipt.share(job.plan, job.planned.name, ended)
        if job.world > 1:
            rounds.say(rounds.closing_path(job.stage.attempts, key), closing)
        if closing.then != "again":
            return Ended(closing.exit_code, requeue=closing.then == "requeue")
        said = ended.failure.message if ended.failure is not None else ended.failed
        print(f"round {number} failed: {said}; once more at rung {rung}", flush=True)
        _pause(job, pause_s)
        number += 1
    _refuse(job, rung, FAILED)
    return Ended(FAILED, requeue=False)


class _Replaced:
    """Whether a later start of the stage has taken over: Slurm gives a node up whose slurmd died,
    and starts the job elsewhere, while the processes of this start live on."""

    def __init__(self, job: _Job, begun: attempts.Attempt) -> None:
        self._job, self._begun = job, begun
        self._asked = time.monotonic()
        self._found = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._found and now - self._asked > REPLACED_S:
            self._asked = now
            self._found = any(map(self._takes_over, attempts.read(self._job.stage.attempts)))
        return self._found

    def _takes_over(self, receipt: attempts.Attempt) -> bool:
        # A later start ends the receipts that it finds open.
        if receipt.number == self._begun.number:
            return receipt.ended is not None
        return receipt.number > self._begun.number and receipt.ended is None


def _refuse(job: _Job, rung: int, exit_code: int) -> None:
    """Tell the other ranks that there is no round."""
    if job.world > 1:
        place = rounds.opening_path(job.stage.attempts, job.key(0))
        rounds.say(place, rounds.Opening(rung, 0, refused=exit_code))


def _given_up(job: _Job) -> bool:
    """Whether jobs of this stage die without a word, again and again."""
    written = _own(job)
    if not written or written[-1].failed != "node":
        return False
    decision = failures.decide(written, "node", len(job.planned.ladder))
    if decision.answer != "end":
        return False
    count = failures.without_progress(written, "node")
    last = receipt.decided(written[-1], "end", decision.failure, count)
    print(last.failure.message if last.failure else decision.failure, flush=True)
    attempts.finish(job.stage.attempts, last)
    return True


def _own(job: _Job) -> list[attempts.Attempt]:
    """The receipts of this submission."""
    return [each for each in attempts.read(job.stage.attempts) if each.token == job.token]


def _make_way(job: _Job, rung: int) -> None:
    """Set checkpoints aside that this rung cannot go on from."""
    written = [r for r in attempts.read(job.stage.attempts) if r.outcome != "superseded"]
    before = written[-1].rung if written else 0
    for number in range(before + 1, rung + 1):
        if not job.planned.ladder[number - 1].keeps_checkpoints:
            why = f"rung {number} of the ladder ({job.planned.ladder[number - 1].what})"
            checkpoints.set_all_aside(job.stage.checkpoints, f"{why} cannot load them")
            return


def _judge(
    job: _Job,
    begun: attempts.Attempt,
    endings: Sequence[rounds.Ending],
    told: FailureClass,
) -> tuple[attempts.Attempt, rounds.Closing, int, float]:
    """The receipt with its end, what comes next, at which rung, and after how many seconds."""
    found = attempts.failures(job.stage.attempts, begun.round_key)
    failed = diagnosis.failure_class(endings, found, job.world, told)
    if complete.read(job.stage) is not None:
        failed = None
    ended = receipt.ended(begun, job.stage, endings, failed)
    if failed is None:
        whole = replace(ended, outcome="complete", exit_code=0, failure=None)
        return whole, rounds.Closing("end", 0), begun.rung, 0
    if job.signals.stop and _cancelled(job):
        stopped = replace(ended, failed=None, answer="end")
        return stopped, rounds.Closing("end", STOPPED), begun.rung, 0
    history = [*(each for each in _own(job) if each.number < ended.number), ended]
    decision = failures.decide(history, failed, len(job.planned.ladder))
    lasts = not job.served and not job.ending and len(endings) == job.world
    answer: Answer = decision.answer
    closing = rounds.Closing("end", ended.exit_code or FAILED)
    if answer == "again" and not lasts:
        answer = "requeue"
    if answer == "requeue":
        closing = rounds.Closing("requeue", STOPPED)
    elif answer == "again" or (answer == "rung" and _same_place(job, begun.rung, decision.rung)):
        closing = rounds.Closing("again", FAILED) if lasts else rounds.Closing("requeue", STOPPED)
    count = failures.without_progress(history, failed)
    judged = receipt.decided(ended, answer, decision.failure, count)
    return judged, closing, decision.rung, decision.pause_s


def _same_place(job: _Job, now: int, then: int) -> bool:
    """Whether this job's allocation is the one of another rung too."""
    a, b = job.planned.at(now).allocation, job.planned.at(then).allocation
    return replace(a, time_minutes=0, signal_lead_s=0) == replace(
        b, time_minutes=0, signal_lead_s=0
    )


def _gather(job: _Job, key: str, own: rounds.Ending) -> tuple[rounds.Ending, ...]:
    """What became of the trainers of all ranks, as far as their supervisors live to say so."""
    if job.served and own.exit_code not in (0, STOPPED):
        # The server's task has its own eyes: what it saw tells why this rank failed.
        time.sleep(5 * POLL_S)
    if job.world == 1:
        return (own,)
    deadline = time.monotonic() + GATHER_S
    while True:
        found = rounds.endings(job.stage.attempts, key)
        if len(found) == job.world or time.monotonic() > deadline or job.signals.now:
            return found or (own,)
        time.sleep(POLL_S)


def _pause(job: _Job, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not job.ending:
        time.sleep(POLL_S)


def _free_port() -> int:
    """For the ranks to meet at. Should another program take it in between, the round fails, and the
    next has another."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _cancelled(job: _Job) -> bool:
    known = journal.submissions(journal.read(job.paths.journal))
    return known[job.planned.name].cancelled


# The other ranks


def _follow(job: _Job) -> Ended:
    """Do as the supervisor of rank 0 says, until it says that this is over or is gone."""
    number = 0
    while True:
        key = job.key(number)
        place = rounds.opening_path(job.stage.attempts, key)
        opening = _await(job, place, rounds.Opening, OPENING_S)
        if opening is None:
            print("rank 0 did not open a round", flush=True)
            return Ended(FAILED, requeue=False)
        if opening.refused is not None:
            return Ended(opening.refused, requeue=False)
        _ending(job, key, _run(job, key, opening))
        place = rounds.closing_path(job.stage.attempts, key)
        closing = _await(job, place, rounds.Closing, CLOSING_S)
        if closing is None:
            print("rank 0 did not say what comes next", flush=True)
            return Ended(FAILED, requeue=False)
        if closing.then != "again":
            return Ended(closing.exit_code, requeue=closing.then == "requeue")
        number += 1


def _await(job: _Job, place: Path, kind: type[Word], seconds: float) -> Word | None:
    """What the supervisor of rank 0 says there; None: it does not, or this job is ended."""
    deadline = time.monotonic() + seconds
    while True:
        said = rounds.heard(place, kind)
        if said is not None:
            return said
        if time.monotonic() > deadline or job.signals.now or job.deserted():
            return None
        time.sleep(POLL_S)


# Every rank


def _run(
    job: _Job, key: str, opening: rounds.Opening, replaced: Callable[[], bool] = lambda: False
) -> Ran:
    """Run this rank's trainer to its end."""
    planned = job.planned.at(opening.rung)
    env = {**environment(job.plan, job.planned.name), "MASTER_PORT": str(opening.port)}
    if job.world == 1 and not job.served:
        env["MASTER_ADDR"] = "127.0.0.1"
    watch = child.Watch(
        signals=job.signals,
        silence=deadlines.silence(planned),
        signal_lead_s=planned.allocation.signal_lead_s,
        memory_limit=int(planned.allocation.host_memory_gib * 2**30)
        // planned.allocation.all_tasks_per_node,
        deserted=lambda: job.deserted() or replaced(),
        others=lambda: _others(job, key),
        apart=job.planned.stage.command is not None,
    )
    if job.served:
        at = client.Place(job.stage, planned, job.start, job.rank)
        server = client.wait(at, lambda: job.signals.now or job.deserted())
        if server is None:
            return Ran(_KILLED, killed="ending", words="it was ended before its server was ready")
        if server.state == "failed":
            return Ran(FAILED, killed="server", words=server.reason)
        env |= client.variables(at, server, env)
        watch = replace(watch, lost=client.lost(at))
    words = [str(job.paths.root), planned.name, job.token, key, str(opening.rung)]
    return child.run(words, env, watch)


def _others(job: _Job, key: str) -> Others | None:
    """What became of another rank of the world that ended, but for one that is done."""
    if job.world == 1:
        return None
    codes = {ending.exit_code for ending in rounds.endings(job.stage.attempts, key)} - {0}
    if not codes:
        return None
    return "stopped" if codes == {STOPPED} else "failed"


def _ending(job: _Job, key: str, ran: Ran) -> rounds.Ending:
    """Say what became of this rank's trainer: for the other ranks, and for the receipt."""
    _leave_failure(job, key, ran)
    ending = rounds.Ending(
        rank=job.rank,
        exit_code=ran.code,
        killed=ran.killed,
        told=job.signals.stop,
        out_of_host_memory=ran.out_of_host_memory,
        host_peak=ran.host_peak,
    )
    if job.world > 1:
        rounds.say(rounds.ending_path(job.stage.attempts, key, job.rank), ending)
    return ending


def _leave_failure(job: _Job, key: str, ran: Ran) -> None:
    """Say for a trainer that died without a word what became of it."""
    path = attempts.failure_path(job.stage.attempts, key, job.rank)
    if path.exists() or ran.killed == "others" or (ran.code <= 128 and ran.killed is None):
        return
    kinds: Mapping[rounds.Killed, attempts.Kind] = {
        "time": "preempted",
        "ending": "node",
        "server": "lost rank",
        "hang": "hang",
    }
    if ran.killed is not None:
        if ran.killed != "hang" and attempts.failures(job.stage.attempts, key):
            return
        kind, words = kinds[ran.killed], ran.words
        if ran.killed == "hang":
            words = f"the trainer of rank {job.rank} {words}"
    else:
        number = ran.code - 128
        kind = "lost rank" if number == signal.SIGABRT else "killed"
        words = f"the trainer of rank {job.rank} was killed by signal {number}"
        if ran.out_of_host_memory:
            words += ": the memory of its node had run out"
        elif number == signal.SIGKILL:
            words += ", as happens when host memory runs out"
    files.write_json(path, attempts.Failure(job.rank, words, traceback="", kind=kind))


# The server's tasks


def _serve(job: _Job, rung: int) -> int:
    """Serve until the attempt is over; the exit code."""
    variables = environment(job.plan, job.planned.name)
    task = serve.Task(job.paths, job.plan, job.planned.at(rung), job.start, job.rank, variables)
    code = serve.run(task, job.signals, job.deserted)
    if code == 0:
        return 0
    # Slurm ends the whole job with the first task that fails: not before rank 0 has said what
    # comes next, and what it says is told with the server's own reason.
    deadline = time.monotonic() + CLOSING_S
    while time.monotonic() < deadline and not (job.signals.now or job.deserted()):
        written = job.start.receipt(job.stage)
        if written is not None and written.outcome is not None:
            found = attempts.failures(job.stage.attempts, job.start.round_key)
            server = next((each for each in found if each.rank >= job.world), written.failure)
            attempts.finish(job.stage.attempts, replace(written, failure=server))
            return 0 if written.answer in ("again", "rung", "requeue") else code
        time.sleep(POLL_S)
    return code


@dataclass(frozen=True)
class _Refusal:
    outcome: attempts.Outcome
    exit_code: int
    failure: attempts.Failure | None = None
    failed: FailureClass | None = None


def _refusal(job: _Job, rung: int) -> _Refusal | None:
    """Why this job must not train, or None."""
    paths, plan, stage, token = job.paths, job.plan, job.planned.name, job.token
    current = journal.submissions(journal.read(paths.journal)).get(stage)
    if current is None or current.token != token or current.cancelled:
        return _Refusal("superseded", SUPERSEDED)
    try:
        for name in plan.stage(stage).stage.needs:
            if plan.stage(name).stage.use is None:
                complete.verify(paths.stage(name))
    except LauncherError as error:
        words = f"{error.message}; {error.hint}" if error.hint else error.message
        return _refused(words)
    distrusted = trust.refusal(paths, plan, stage)
    if distrusted is not None:
        failed, words = distrusted
        return _refused(words, failed)
    needed = job.planned.at(rung).allocation.processes
    if job.world != needed:
        return _refused(
            f"this job has {job.world} processes, rung {rung} of the plan's ladder {needed}"
        )
    without = serve.missing(plan.stage(stage), platform.node())
    if without is not None:
        return _refused(without)
    return None


def _refused(words: str, failed: FailureClass = "user") -> _Refusal:
    failure = attempts.Failure(rank=0, message=words, traceback="", kind=failed)
    return _Refusal("error", USER_ERROR, failure, failed)


def environment(plan: Plan, stage: str) -> Mapping[str, str]:
    """The variables of the stage's trainer."""
    planned = plan.stage(stage)
    # What profile or recipe set themselves is in the job's environment, and stays.
    theirs = {*plan.cluster.env, *planned.stage.env}
    scratched = scratch.variables(plan.cluster.scratch)
    # No more threads than cores that this task may use: a development cluster declares more.
    threads = str(max(1, min(planned.allocation.cpus_per_task, len(os.sched_getaffinity(0)))))
    return {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Bars that rewrite their line make a log file unreadable; progress has a file of its own.
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        **network.variables(os.environ),
        **_allocator(plan, planned.stage),
        **{name: value for name, value in scratched.items() if name not in theirs},
        **secrets.variables(plan.cluster.secrets),
    }


def _allocator(plan: Plan, stage: Stage) -> Mapping[str, str]:
    """Segments that grow: lengths that vary leave no holes that nothing fits. vLLM's pools of
    memory cannot live with them."""
    name = "PYTORCH_CUDA_ALLOC_CONF"
    if plan.cluster.device != "cuda" or not grows(stage) or name in os.environ:
        return {}
    return {name: "expandable_segments:True"}
