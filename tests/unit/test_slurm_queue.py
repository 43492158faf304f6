"""squeue's text, as 22.05 and 24.11 print it, and what other words of Slurm amount to."""

from __future__ import annotations

import pytest

from launcher.errors import LauncherError, SchedulerUnavailable
from launcher.scheduler import shell
from launcher.scheduler.queue import ending, parse_squeue, squeue_command

TAG = "launcher:demo-0a1b2c3d:sft:f00d"
CANCELLED = "JobState=COMPLETING Reason=None Restarts=0"


def line(
    word: str,
    reason: str = "None",
    job_id: str = "41",
    starts: str = "N/A",
    tag: str = TAG,
    waits: str = "(null)",
) -> str:
    return f"{job_id}|{word}|{reason}|{starts}||{waits}|{tag}\n"


@pytest.mark.parametrize(
    ("word", "reason", "state", "words"),
    [
        ("PENDING", "Priority", "pending", "jobs of higher priority are ahead"),
        ("PENDING", "Dependency", "pending", "waits for the stage before it"),
        ("PENDING", "DependencyNeverSatisfied", "blocked", "the stage before it failed"),
        ("PENDING", "BeginTime", "pending", "Slurm holds it back for a moment after a requeue"),
        ("REQUEUED", "None", "pending", ""),
        ("SPECIAL_EXIT", "None", "pending", ""),
        ("RUNNING", "None", "running", ""),
        ("COMPLETING", "None", "running", ""),
        ("CONFIGURING", "None", "running", ""),
        ("COMPLETED", "None", "complete", ""),
        ("CANCELLED", "None", "cancelled", ""),
        ("TIMEOUT", "TimeLimit", "failed", "the time limit was reached"),
        ("NODE_FAIL", "NodeDown", "failed", "a node of the job went down"),
        ("OUT_OF_MEMORY", "OutOfMemory", "failed", "host memory ran out (--mem)"),
        ("A_STATE_OF_TOMORROW", "None", "pending", ""),
        ("PENDING", "AReasonOfTomorrow", "pending", "AReasonOfTomorrow"),
        # 22.05 puts a space after the comma, 24.11 an underscore.
        (
            "PENDING",
            "ReqNodeNotAvail, UnavailableNodes:a40-1",
            "pending",
            "a node that it needs is down, drained or reserved (UnavailableNodes:a40-1)",
        ),
        (
            "PENDING",
            "ReqNodeNotAvail,_UnavailableNodes:a40-1",
            "pending",
            "a node that it needs is down, drained or reserved (UnavailableNodes:a40-1)",
        ),
        ("PENDING", "launch_failed_requeued_held", "pending", "launch failed requeued held"),
    ],
)
def test_a_state_and_its_reason_are_told_in_words(
    word: str, reason: str, state: str, words: str
) -> None:
    job = parse_squeue(line(word, reason))[TAG]
    assert (job.state, job.reason, job.word) == (state, words, word)


def test_every_field_of_a_job_is_read() -> None:
    text = f"17|RUNNING|None|2026-01-02T03:04:05|h80-[1-2]|(null)|{TAG}\n"
    job = parse_squeue(text)[TAG]
    assert (job.job_id, job.starts, job.nodes) == ("17", "2026-01-02T03:04:05", "h80-[1-2]")


def test_a_start_that_is_not_known_is_empty() -> None:
    assert parse_squeue(line("PENDING", starts="N/A"))[TAG].starts == ""


def test_other_peoples_comments_are_no_tags_whatever_they_hold() -> None:
    text = (
        "1|RUNNING|None|N/A|n1|(null)|(null)\n"
        "2|RUNNING|None|N/A|n1|(null)|\n"
        "3|RUNNING|None|N/A|n1|(null)|a|b|launcher:x:y:z\n"
        "4_[1-9%2]|PENDING|Priority|N/A||(null)|sweep | launcher: 7\n"
        "slurm_load_jobs: a warning\n"
        "\n" + line("PENDING")
    )
    assert list(parse_squeue(text)) == [TAG]


def test_a_comment_with_the_separator_stays_whole() -> None:
    tag = f"{TAG}|and|more"
    assert list(parse_squeue(line("RUNNING", tag=tag))) == [tag]


@pytest.mark.parametrize("order", [("9", "10"), ("10", "9")])
def test_of_two_jobs_with_one_tag_the_newer_counts(order: tuple[str, str]) -> None:
    text = "".join(line("RUNNING", job_id=job_id) for job_id in order)
    assert parse_squeue(text)[TAG].job_id == "10"


def test_an_array_or_a_heterogeneous_job_that_copied_a_comment_does_no_harm() -> None:
    text = line("RUNNING", job_id="7") + line("PENDING", job_id="5_[1-3]")
    assert parse_squeue(text + line("PENDING", job_id="6+0"))[TAG].job_id == "7"


def test_what_a_job_waits_for_is_read_kind_by_kind() -> None:
    waits = "afterok:41(unfulfilled),afterok:7(failed),afterany:40(unfulfilled)"
    job = parse_squeue(line("PENDING", "Dependency", waits=waits))[TAG]
    assert (job.waits_for, job.after) == (("41", "7"), ("40",))
    free = parse_squeue(line("PENDING"))[TAG]
    assert (free.waits_for, free.after) == ((), ())


@pytest.mark.parametrize(
    ("reason", "held"),
    [
        ("JobHeldAdmin", True),
        ("launch failed requeued held", True),
        ("launch_failed_requeued_held", True),
        ("JobHeldUser", False),
        ("Priority", False),
    ],
)
def test_a_hold_of_slurms_own_is_told_from_its_owners(reason: str, held: bool) -> None:
    assert parse_squeue(line("PENDING", reason))[TAG].held is held


@pytest.mark.parametrize(
    ("shown", "word"),
    [
        ("JobState=RUNNING Reason=None Restarts=0", "FAILED"),
        ("JobState=COMPLETING Reason=None Restarts=1", "PENDING"),
        ("JobState=PENDING Reason=BeginTime Restarts=1", "PENDING"),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", "TIMEOUT"),
        ("JobState=COMPLETING Reason=None Restarts=0", "CANCELLED"),
        ("JobState=COMPLETING Reason=NonZeroExitCode Restarts=0", ""),
        # Preempted by cancelling: without grace, and amid it.
        (f"{CANCELLED} EndTime=2026-11-29T02:53:49 PreemptTime=2026-11-29T02:53:49", "PREEMPTED"),
        (f"{CANCELLED} EndTime=2026-11-29T02:53:58 PreemptTime=2026-11-29T02:53:49", ""),
        (f"{CANCELLED} EndTime=Unknown PreemptTime=2026-11-29T02:53:49", ""),
        (f"{CANCELLED} EndTime=2026-11-29T02:53:49 PreemptTime=None", "CANCELLED"),
    ],
)
def test_a_script_knows_what_its_job_comes_to(shown: str, word: str) -> None:
    assert ending(f"JobId=41 JobName=a {shown} Requeue=1", restarts=0) == word


def test_a_job_that_was_restarted_before_has_not_been_put_back_for_that() -> None:
    assert ending("JobState=RUNNING Reason=None Restarts=2", restarts=2) == "FAILED"


def test_an_empty_queue_is_no_job() -> None:
    assert parse_squeue("") == {}


def test_squeue_is_asked_once_for_all_jobs_of_one_user() -> None:
    command = squeue_command("ada")
    assert command[0] == "squeue"
    assert "--user=ada" in command and "--states=all" in command
    assert command[-1].endswith("|%k")


SILENT = """\
sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)
"""
UNKNOWN = """\
scontrol: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
scontrol: error: fetch_config: DNS SRV lookup failed
scontrol: fatal: Could not establish a configuration source
"""
REFUSED = """\
Command '['sbatch', 'x.sh']' returned non-zero exit status 1.
sbatch: error: invalid partition specified: nowhere
sbatch: error: Batch job submission failed: Invalid partition name specified
see the log
"""


@pytest.mark.parametrize("words", [SILENT, UNKNOWN, "squeue: error: Socket timed out on send/recv"])
def test_a_slurm_that_does_not_answer_is_told_from_one_that_refuses(words: str) -> None:
    error = shell.unavailable(words)
    assert isinstance(error, SchedulerUnavailable)
    assert error.hint and "\n" not in error.message


def test_a_refusal_is_its_last_complaint() -> None:
    assert shell.unavailable(REFUSED) is None
    assert shell.said(REFUSED) == (
        "sbatch: error: Batch job submission failed: Invalid partition name specified"
    )


def test_a_program_that_is_missing_fails_or_hangs_is_an_error_in_words() -> None:
    with pytest.raises(SchedulerUnavailable, match="no-such-program is not on this machine"):
        shell.run(["no-such-program"])
    with pytest.raises(LauncherError, match="false: exit code 1"):
        shell.run(["false"])
    with pytest.raises(SchedulerUnavailable, match=r"sleep did not answer within 0\.05 s"):
        shell.run(["sleep", "5"], timeout=0.05)
