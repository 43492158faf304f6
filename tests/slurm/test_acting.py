"""What brings a chain forward on a real Slurm: the script of a job, and the commands that act."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.local.machine import processes_of
from tests.slurm import programs
from tests.slurm.devcluster import GRACE_SECONDS, DevCluster, wait_until
from tests.slurm.shell import Shell

MANY_S = 120


@pytest.fixture
def held(shell: Shell, dev_cluster: DevCluster) -> Iterator[str]:
    """A recipe of three programs, the first of which waits; at the end nothing of it is queued."""
    programs.hold(shell, "first")
    yield programs.chain(shell)
    for path in shell.home.glob("*.wait"):
        path.unlink()
    for job in queue(dev_cluster):
        dev_cluster.run("scancel", job)
    # A job that was cancelled is seen as completing while its script still ends.
    wait_until(lambda: not queue(dev_cluster), "an empty queue", MANY_S)


def queue(cluster: DevCluster) -> dict[str, str]:
    """Job → its tag, of those that wait or run."""
    lines = cluster.squeue("%A %k")
    return {line.split()[0]: line.split()[-1] for line in lines}


def stages(shell: Shell) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in shell.data("status")["stages"]}


def states(shell: Shell) -> list[str]:
    return [stage["state"] for stage in shell.data("status")["stages"]]


def actions(answer: Any) -> list[str]:
    return [stage["action"] for stage in answer["stages"]]


def events(shell: Shell, run: str, kind: str) -> list[dict[str, Any]]:
    found = sorted((shell.runs / run / "journal").glob("*.json"))
    every = [json.loads(path.read_text()) for path in found]
    return [event for event in every if event["kind"] == kind]


def release(shell: Shell, stage: str = "first") -> None:
    (shell.home / f"{stage}.wait").unlink()


def wait_for(shell: Shell, stage: str, state: str) -> None:
    wait_until(lambda: stages(shell)[stage]["state"] == state, f"{stage} to be {state}", MANY_S)


def test_a_job_that_failed_takes_what_waits_for_it_out_of_the_queue_itself(
    shell: Shell, dev_cluster: DevCluster
) -> None:
    (shell.home / "second.fail").touch()
    run = shell.data("submit", programs.chain(shell))["run"]
    wait_until(lambda: not queue(dev_cluster), "an empty queue", MANY_S)
    assert states(shell) == ["complete", "failed", "blocked"]
    failed = stages(shell)["second"]
    assert (failed["failed"], failed["answer"]) == ("user", "end")
    (dropped,) = events(shell, run, "dropped")
    assert dropped["detail"] == "stage second did not finish (user)"

    told = {stage["stage"]: stage for stage in shell.data("why")["stages"]}
    assert "exit code 7" in told["second"]["why"]
    assert told["second"]["command"] == f"launcher resume {run}"
    assert told["third"]["why"].endswith("stage second did not finish (user)")
    words = shell.run("why", run, "second")
    assert "attempt 1: job" in words and "third" not in words

    # What is deterministic is not tried again, and the same command of a person does.
    assert actions(shell.data("advance")) == ["complete", "failed", "left"]
    (shell.home / "second.fail").unlink()
    shell.run("resume", "--wait")
    assert [programs.starts(shell, name) for name in programs.NAMES] == [1, 2, 1]


def test_a_job_that_its_user_cancelled_stays_so_and_leaves_nothing_in_the_queue(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = shell.data("submit", held)["run"]
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    dev_cluster.run("scancel", stages(shell)["first"]["job_id"])
    wait_until(lambda: not queue(dev_cluster), "an empty queue", MANY_S)
    assert states(shell) == ["cancelled", "blocked", "blocked"]
    assert {e["detail"] for e in events(shell, run, "dropped")} == {"stage first was cancelled"}
    assert actions(shell.data("advance")) == ["cancelled", "left", "left"]
    shell.run("submit", held, code=2)
    release(shell)
    shell.run("resume", "--wait")
    assert programs.starts(shell, "first") == 2


@pytest.fixture
def cancelling(dev_cluster: DevCluster) -> Iterator[None]:
    """The partition `preempt` preempts by cancelling, and without grace."""
    change = ("scontrol", "update", "partitionname=preempt")
    dev_cluster.run(*change, "preemptmode=cancel", "gracetime=0")
    yield
    dev_cluster.run(*change, "preemptmode=requeue", f"gracetime={GRACE_SECONDS}")


@pytest.mark.usefixtures("cancelling")
def test_a_job_that_slurm_preempts_by_cancelling_is_not_taken_for_one_that_its_user_cancelled(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = shell.data("submit", held, "resources.partition=preempt")["run"]
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    for partition in ("a100", "h100"):
        words = ("--nodes=2", "--exclusive", "--time=1", f"--partition={partition}")
        dev_cluster.sbatch("sleep 1", *words)

    def again() -> bool:
        # Its script goes on by itself, unless Slurm kills that sooner.
        if stages(shell)["first"]["state"] == "failed":
            shell.data("advance")
        return programs.starts(shell, "first") == 2

    wait_until(again, "another start", MANY_S)
    first, second = shell.attempts(run, "first")
    assert first["job_id"] != second["job_id"]
    assert not events(shell, run, "cancelled") and not events(shell, run, "dropped")
    (found,) = events(shell, run, "failed")
    assert found["failure"] == "preempted"
    release(shell)
    wait_for(shell, "third", "complete")


def kill(shell: Shell, run: str, job: str | None = None) -> None:
    """End the run's processes on the nodes at once; with a `job`, its script before them."""
    if job is not None:
        scripts = list(Path("/proc").glob("[0-9]*/cmdline"))
        for path in scripts:
            with suppress(OSError):
                if f"/job{int(job):05d}/slurm_script" in path.read_bytes().decode():
                    os.kill(int(path.parent.name), signal.SIGKILL)
    for pid in processes_of(shell.runs / run):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_job_whose_every_process_was_killed_is_submitted_again_and_the_others_wait_for_it(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    submitted = shell.data("submit", held)
    before = {stage["stage"]: stage["job_id"] for stage in submitted["stages"]}
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    kill(shell, submitted["run"], before["first"])
    wait_for(shell, "first", "failed")
    first = stages(shell)["first"]
    assert (first["failed"], first["answer"]) == ("lost rank", "again")
    assert "next: submitted again (launcher advance " in shell.run("why")
    answer = shell.data("advance")
    assert actions(answer) == ["submitted", "rewired", "queued"]
    # What is right is left as it is.
    assert actions(shell.data("advance")) == ["queued"] * 3
    after = {stage["stage"]: stage["job_id"] for stage in answer["stages"]}
    assert before["first"] != after["first"]
    for stage in ("second", "third"):
        assert before[stage] == after[stage]
    release(shell)
    wait_for(shell, "third", "complete")


def test_what_dies_time_and_again_is_submitted_again_by_its_own_script_and_then_given_up(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = shell.data("submit", held)["run"]
    for times in range(1, 5):
        wait_until(lambda n=times: programs.starts(shell, "first") == n, "a start", MANY_S)  # type: ignore[misc]
        kill(shell, run)
    wait_until(lambda: not queue(dev_cluster), "an empty queue", MANY_S)
    assert programs.starts(shell, "first") == 4, "three times again after the first"
    assert stages(shell)["first"]["failed"] == "no progress"
    assert states(shell) == ["failed", "blocked", "blocked"]


def test_a_job_that_slurm_holds_is_released_three_times(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = shell.data("submit", held)["run"]
    job = stages(shell)["second"]["job_id"]
    for _ in range(3):
        dev_cluster.run("scontrol", "hold", job)
        assert "JobHeldAdmin" in dev_cluster.show(job)["Reason"]
        assert actions(shell.data("advance"))[1] == "released"
        assert dev_cluster.show(job)["Reason"] in ("Dependency", "None")
    dev_cluster.run("scontrol", "hold", job)
    assert actions(shell.data("advance")) == ["queued", "given up", "dropped"]
    assert len(events(shell, run, "released")) == 3
    assert stages(shell)["second"]["failed"] == "held"
    assert [tag.split(":")[2] for tag in queue(dev_cluster).values()] == ["first"]


@pytest.mark.long
def test_from_a_stage_on_all_is_run_again_and_what_there_was_is_kept(
    shell: Shell, dev_cluster: DevCluster
) -> None:
    recipe = programs.chain(shell)
    run = shell.data("submit", recipe, "--wait")["run"]
    programs.hold(shell, "second")
    shell.run("resume", run, "--from", "second")
    assert states(shell)[0] == "complete" and "complete" not in states(shell)[1:]
    wait_until(lambda: programs.starts(shell, "second") == 2, "the program", MANY_S)
    refused = shell.start("resume", run, "--from", "first")
    assert "stage second of" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 2
    release(shell, "second")
    wait_for(shell, "third", "complete")
    assert [programs.starts(shell, name) for name in programs.NAMES] == [1, 2, 2]
    (old,) = (shell.runs / run / "stages" / "second").glob("old-*")
    assert {path.name for path in old.iterdir()} >= {"COMPLETE.json", "attempts"}
    assert not list((shell.runs / run / "stages" / "first").glob("old-*"))
    for kind in ("again", "cleared"):
        # The last first, so that a command which is killed amid it leaves none finished of these.
        assert [event["stage"] for event in events(shell, run, kind)] == ["third", "second"]


def wrapped(shell: Shell, script: str, name: str = "sbatch") -> None:
    """Put a script of bash before a real command of Slurm, which it calls as "$real"."""
    folder = shell.home / "bin"
    folder.mkdir()
    path = folder / name
    calls = folder / "calls"
    real = shutil.which(name)
    path.write_text(f"#!/bin/bash\nreal={real}\ncalls={shlex.quote(str(calls))}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    shell.env["PATH"] = f"{folder}:{os.environ['PATH']}"


FIRST_TIME = 'echo call >> "$calls"; [ "$(wc -l < "$calls")" -eq %d ] || exec "$real" "$@"\n'


def test_an_sbatch_that_times_out_though_it_was_accepted_is_adopted(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    timeout = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    wrapped(shell, FIRST_TIME % 2 + f'"$real" "$@" >&2; echo "{timeout}" >&2; exit 1')
    shell.run("submit", held, code=4)
    assert len(queue(dev_cluster)) == 2
    assert actions(shell.data("submit", held)) == ["queued", "adopted", "submitted"]
    assert len(set(queue(dev_cluster).values())) == len(queue(dev_cluster)) == 3


SLOW = FIRST_TIME % 2 + 'touch "$calls.slow"; sleep 8; "$real" "$@"; touch "$calls.done"'


def killed_amid_sbatch(shell: Shell, recipe: str) -> str:
    """The run of a submission that was killed while its second sbatch, a slow one, goes on."""
    wrapped(shell, SLOW)
    submitting = shell.start("submit", recipe)
    wait_until((shell.home / "bin" / "calls.slow").exists, "the second sbatch", MANY_S)
    submitting.kill()
    submitting.communicate(timeout=60)
    (run,) = shell.runs.glob("[a-z]*")
    return run.name


def test_an_sbatch_that_outlives_its_launcher_is_waited_for_by_the_same_command(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    killed_amid_sbatch(shell, held)
    assert actions(shell.data("submit", held)) == ["queued", "adopted", "submitted"]
    assert len(set(queue(dev_cluster).values())) == len(queue(dev_cluster)) == 3


def test_an_sbatch_that_outlives_its_launcher_is_waited_for_and_its_job_cancelled(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = killed_amid_sbatch(shell, held)
    assert shell.data("cancel", run)["stages"] == ["first", "second"]
    wait_until((shell.home / "bin" / "calls.done").exists, "the second sbatch", MANY_S)
    wait_until(lambda: not queue(dev_cluster), "an empty queue", 30)


def test_a_limit_that_is_met_on_the_way_leaves_what_was_queued_and_the_same_command_goes_on(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    wrapped(shell, FIRST_TIME % 2 + f'echo "{limit}" >&2; exit 1')
    refused = shell.start("submit", held)
    words = refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    assert "QOSMaxSubmitJobPerUserLimit; queued: first" in words and "the same command" in words
    assert "QOSMaxSubmitJobPerUserLimit" in stages(shell)["second"]["reason"]
    assert actions(shell.data("submit", held)) == ["queued", "submitted", "submitted"]
    assert len(queue(dev_cluster)) == 3


@pytest.mark.long
def test_verify_sends_again_what_the_controller_forgot(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    wrapped(shell, FIRST_TIME % 2 + "echo Submitted batch job 999999")
    answer = shell.data("submit", held, "--verify")
    assert actions(answer)[:2] == ["submitted"] * 2
    assert "999999" not in [stage["job_id"] for stage in answer["stages"]]
    # Slurm runs at once what waits for a job that it does not know; that job trains nothing, and
    # has its stage submitted again.
    wait_until(lambda: states(shell)[1:] == ["pending", "pending"], "the chain", MANY_S)
    assert len(queue(dev_cluster)) == 3
    release(shell)
    wait_for(shell, "third", "complete")
    assert programs.starts(shell, "third") == 1


def test_what_a_user_has_set_for_slurms_commands_changes_nothing_of_a_chain(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    """sbatch puts its variables before the script, squeue narrows by its own what it shows, and
    those of a job go on to the next: here as if the user stood in one that was started again."""
    secret = {"HF_TOKEN": "t" * 20}
    shell.env |= secret | {
        "SBATCH_EXPORT": "ALL",
        "SBATCH_NO_REQUEUE": "1",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_JOB_NAME": "mine",
        "SQUEUE_PARTITION": "h100",
        "SQUEUE_NAMES": "mine",
        "LOGNAME": "somebody",
        "SLURM_RESTART_COUNT": "7",
        "SLURM_CPUS_PER_TASK": "64",
    }
    answer = shell.data("submit", held)
    assert actions(answer) == ["submitted"] * 3
    assert len(queue(dev_cluster)) == 3
    job = dev_cluster.show(answer["stages"][0]["job_id"])
    assert job["Requeue"] == "1" and job["TimeLimit"] != "00:01:00" and job["JobName"] != "mine"
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    assert not [
        pid
        for pid in processes_of(shell.runs / answer["run"])
        if b"HF_TOKEN" in (Path("/proc") / str(pid) / "environ").read_bytes()
    ]
    assert shell.attempts(answer["run"], "first")[0]["restarts"] == 0
    assert actions(shell.data("submit", held)) == ["queued"] * 3
    assert shell.data("cancel")["stages"] == list(programs.NAMES)
    assert not [tag for tag in queue(dev_cluster).values() if "second" in tag or "third" in tag]


def test_a_job_that_the_queue_does_not_show_is_not_sent_again_by_the_same_command(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    wrapped(shell, "exit 0", name="squeue")
    assert actions(shell.data("submit", held)) == ["submitted"] * 3
    assert len(queue(dev_cluster)) == 3


def test_what_could_not_be_cancelled_is_by_the_same_command_again(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    shell.data("submit", held)
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    silent = "scancel: error: Kill job error: Unable to contact slurm controller"
    wrapped(shell, FIRST_TIME % 1 + f'echo "{silent}" >&2; exit 1', name="scancel")
    shell.run("cancel", code=4)
    assert len(queue(dev_cluster)) == 3
    assert shell.data("cancel")["stages"] == list(programs.NAMES)
    wait_until(lambda: not queue(dev_cluster), "an empty queue", MANY_S)
    assert shell.data("cancel")["stages"] == []


def test_a_cancelled_run_is_not_brought_forward_by_a_failure_that_may_pass(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    submitted = shell.data("submit", held)
    wait_until(lambda: programs.starts(shell, "first") == 1, "the program", MANY_S)
    kill(shell, submitted["run"], submitted["stages"][0]["job_id"])
    wait_for(shell, "first", "failed")
    assert shell.data("cancel")["stages"] == list(programs.NAMES)
    assert states(shell) == ["cancelled"] * 3
    assert actions(shell.data("advance")) == ["cancelled"] * 3
    assert not queue(dev_cluster)
    shell.run("submit", held, code=2)
    assert actions(shell.data("resume")) == ["submitted"] * 3


HOST = """
import contextlib, sys, time
from launcher.records import journal
from launcher.run import act, chain
act.only_one = lambda run: contextlib.nullcontext()
journal.platform.node = lambda name=sys.argv.pop(1): name
write = journal.append_after
# All of them have looked before one writes.
journal.append_after = lambda *words: time.sleep(0.5) or write(*words)
from launcher.cli.main import main
main()
"""


def test_launchers_on_several_hosts_that_share_no_lock_make_one_chain(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    host = shell.home / "host.py"
    host.write_text(HOST)
    all_at_once = [
        shell.start_as((sys.executable, str(host), f"host{n}"), "submit", held, "--json")
        for n in range(4)
    ]
    answers = [process.communicate(timeout=120) for process in all_at_once]
    assert [process.returncode for process in all_at_once] == [0] * 4, answers
    ids = {tuple(s["job_id"] for s in json.loads(out)["data"]["stages"]) for out, _ in answers}
    assert len(ids) == 1
    assert set(queue(dev_cluster)) == set(*ids)
    assert states(shell)[1:] == ["pending", "pending"]


def test_a_job_of_an_older_submission_is_taken_out_and_another_users_name_for_it_is_not_ours(
    shell: Shell, dev_cluster: DevCluster, held: str
) -> None:
    run = shell.data("submit", held)["run"]
    old = f"launcher:{run}:second:{'0' * 32}"
    intent = {"kind": "intent", "time": 0, "stage": "second", "token": "0" * 32}
    journal = shell.runs / run / "journal"
    # Before the submissions that count.
    (journal / "000000.json").write_text(json.dumps(intent))
    stray = dev_cluster.sbatch("true", "--hold", "--partition=a100", f"--comment={old}")
    unknown = f"launcher:{run}:second:{'f' * 32}"
    newer = dev_cluster.sbatch("true", "--hold", "--partition=a100", f"--comment={unknown}")
    assert actions(shell.data("advance")) == ["queued"] * 3
    assert stray not in queue(dev_cluster)
    assert newer in queue(dev_cluster), "of a submission that this look may not have seen yet"
