"""What the supervisor of every rank does in a round: run its trainer, and say what became of it."""

from __future__ import annotations

import platform
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

from launcher.errors import LauncherError
from launcher.records import attempts, files, rounds
from launcher.worker import child, deadlines
from launcher.worker.child import Others, Ran
from launcher.worker.outcome import FAILED, STOPPED
from launcher.worker.supervision.job import Job, environment
from launcher.worker.supervision.patience import patient
from launcher.worker.supervision.refusal import Refusal, unread
from launcher.worker.vllm import client

_KILLED = 128 + signal.SIGKILL


def run(
    job: Job, key: str, opening: rounds.Opening, replaced: Callable[[], bool] = lambda: False
) -> Ran:
    """Run this rank's trainer to its end, or say why it could not be started."""
    planned = job.planned.at(opening.rung)
    try:
        own = patient(job, lambda: environment(job.plan, job.planned.name))
    except (OSError, LauncherError) as error:
        refused = unread(error)
        refuse(job, key, refused)
        return Ran(refused.exit_code)
    env = {**own, "MASTER_PORT": str(opening.port)}
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


def _others(job: Job, key: str) -> Others | None:
    """What became of another rank of the world that ended, but for one that is done."""
    if job.world == 1:
        return None
    try:
        codes = {ending.exit_code for ending in rounds.endings(job.stage.attempts, key)} - {0}
    except OSError:
        # A disk that does not answer now is asked again.
        return None
    if not codes:
        return None
    return "stopped" if codes == {STOPPED} else "failed"


def ending(job: Job, key: str, ran: Ran) -> rounds.Ending:
    """Say what became of this rank's trainer: for the other ranks, and for the receipt."""
    alone = job.world == 1
    failure = patient(job, lambda: _failure(job, key, ran))
    if failure is not None:
        place = attempts.failure_path(job.stage.attempts, key, job.rank)
        patient(job, lambda: files.write_json(place, failure), tidy=alone)
    ending = rounds.Ending(
        rank=job.rank,
        exit_code=ran.code,
        killed=ran.killed,
        told=job.signals.stop,
        out_of_host_memory=ran.out_of_host_memory,
        host_peak=ran.host_peak,
    )
    if not alone:
        place = rounds.ending_path(job.stage.attempts, key, job.rank)
        patient(job, lambda: rounds.say(place, ending))
    return ending


def refuse(job: Job, key: str, refused: Refusal) -> None:
    """Say in place of this rank's trainer, or of the server, why it must not start."""
    if refused.failure is not None:
        words = f"rank {job.rank} on {platform.node()}: {refused.failure.message}"
        failure = replace(refused.failure, rank=job.rank, message=words)
        place = attempts.failure_path(job.stage.attempts, key, job.rank)
        patient(job, lambda: files.private_folder(place.parent))
        patient(job, lambda: files.write_json(place, failure))
    if job.rank < job.world:
        said = rounds.Ending(job.rank, refused.exit_code)
        end = rounds.ending_path(job.stage.attempts, key, job.rank)
        patient(job, lambda: rounds.say(end, said))


def _failure(job: Job, key: str, ran: Ran) -> attempts.Failure | None:
    """What became of a trainer that died without a word; None: it, or another, says so itself."""
    path = attempts.failure_path(job.stage.attempts, key, job.rank)
    if ran.well or ran.killed == "others" or path.exists():
        return None
    if ran.killed is None and ran.code <= 128:
        why = files.unwritable(path.parent)
        words = f"the trainer of rank {job.rank} ended with exit code {ran.code} and could not say"
        if why is None:
            return None
        return attempts.Failure(job.rank, f"{words} why: {why}", traceback="", kind="disk")
    kinds: Mapping[rounds.Killed, attempts.Kind] = {
        "time": "preempted",
        "ending": "node",
        "server": "lost rank",
        "hang": "hang",
    }
    if ran.killed is not None:
        if ran.killed != "hang" and attempts.failures(job.stage.attempts, key):
            return None
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
    return attempts.Failure(job.rank, words, traceback="", kind=kind)
