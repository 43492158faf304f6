"""What `squeue` says, as values. Commands and parsers are pure."""

from __future__ import annotations

import math
import re
from datetime import datetime

from launcher.scheduler.jobs import QueuedJob, QueueState

# The text formats are stable from 22.05 to 24.11 and much faster than --json. The comment stands
# last, because it is the one field that may hold the separator.
_FORMAT = "%i|%T|%r|%S|%N|%E|%k"

_STATES: dict[str, QueueState] = {
    "PENDING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_FED": "pending",
    "REQUEUE_HOLD": "pending",
    "RESV_DEL_HOLD": "pending",
    "SPECIAL_EXIT": "pending",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "COMPLETING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETED": "complete",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "BOOT_FAIL": "failed",
    "DEADLINE": "failed",
    "FAILED": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "TIMEOUT": "failed",
}

_REASONS = {
    "None": "",
    "Priority": "jobs of higher priority are ahead",
    "Resources": "waits for nodes to become free",
    "Dependency": "waits for the stage before it",
    "DependencyNeverSatisfied": "the stage before it failed",
    "BeginTime": "Slurm holds it back for a moment after a requeue",
    "JobHeldUser": "held by its user (scontrol release)",
    "JobHeldAdmin": "held by an administrator or after a failed start",
    "PartitionTimeLimit": "asks for more time than the partition allows",
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Licenses": "waits for a licence",
    "AssocGrpGRES": "the account's limit of GPUs is reached",
    "QOSMaxGRESPerUser": "the QOS limit of GPUs a user is reached",
    "QOSMaxJobsPerUserLimit": "the QOS limit of jobs a user is reached",
    "QOSGrpGRES": "the QOS limit of GPUs is reached",
    "NonZeroExitCode": "the program ended with an error",
    "TimeLimit": "the time limit was reached",
    "NodeDown": "a node of the job went down",
    "OutOfMemory": "host memory ran out (--mem)",
    "RaisedSignal": "a signal ended it",
}

AT_ONCE_S = 1
"""Seconds from a preemption to the end of a job that is given no grace, as Slurm rounds them."""

# Of a job that Slurm put back after a start that failed. `JobHeldUser` is its owner's own wish.
_HELD = ("JobHeldAdmin", "launch failed requeued held")


def squeue_command(user: str) -> list[str]:
    """All of the user's jobs that Slurm still knows, ended ones for a few minutes too."""
    return ["squeue", "--noheader", "--states=all", f"--user={user}", f"--format={_FORMAT}"]


def parse_squeue(text: str) -> dict[str, QueuedJob]:
    """Tag → job, for the jobs that carry a tag of ours. Where two share a tag, the newer."""
    jobs: dict[str, QueuedJob] = {}
    for line in text.splitlines():
        fields = line.split("|", 6)
        if len(fields) < 7 or not fields[6].startswith("launcher:"):
            continue
        job_id, word, reason, starts, nodes, waits, tag = fields
        state = _STATES.get(word, "pending")
        if state == "pending" and reason == "DependencyNeverSatisfied":
            state = "blocked"
        known = jobs.get(tag)
        if known is None or _number(known.job_id) < _number(job_id):
            jobs[tag] = QueuedJob(
                job_id=job_id,
                tag=tag,
                state=state,
                word=word,
                reason=_in_words(reason),
                starts="" if starts == "N/A" else starts,
                nodes=nodes,
                waits_for=_ids("afterok", waits),
                after=_ids("afterany", waits),
                held=state == "pending" and reason.replace("_", " ") in _HELD,
            )
    return jobs


def _ids(kind: str, waits: str) -> tuple[str, ...]:
    """Of `afterok:41(unfulfilled),afterany:42_*(failed)`, those of one kind."""
    return tuple(re.findall(rf"(?:^|[,?]){kind}:(\d+)", waits))


def _in_words(reason: str) -> str:
    """`ReqNodeNotAvail, UnavailableNodes:n1` is a known reason with a detail."""
    known, comma, detail = reason.partition(",")
    words = _REASONS.get(known, known.replace("_", " "))
    return f"{words} ({detail.strip(' _')})" if comma else words


def ending(shown: str, restarts: int) -> str:
    """The state that a job in `scontrol show job`'s words comes to, seen by its own script.

    While the script lives the job is COMPLETING whatever becomes of it; one that goes back into the
    queue has been counted as restarted already. Empty: not known.
    """
    said = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    state, reason = said.get("JobState", ""), said.get("Reason", "")
    if state == "PENDING" or int(said.get("Restarts", "0")) > restarts:
        return "PENDING"
    if reason == "TimeLimit":
        return "TIMEOUT"
    if state == "RUNNING":
        return "FAILED"
    if said.get("PreemptTime", "None") != "None":
        # In the grace of a preemption its user may have cancelled it; without grace it ends with
        # the preemption.
        at_once = _between(said["PreemptTime"], said.get("EndTime", "")) <= AT_ONCE_S
        return "PREEMPTED" if at_once else ""
    return "CANCELLED" if state in ("COMPLETING", "CANCELLED") and reason == "None" else ""


def _between(first: str, second: str) -> float:
    """Seconds between two of Slurm's times; infinite where one is not known."""
    try:
        return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()
    except ValueError:
        return math.inf


def _number(job_id: str) -> int:
    return int(re.match(r"\d*", job_id)[0] or 0)  # type: ignore[index]
