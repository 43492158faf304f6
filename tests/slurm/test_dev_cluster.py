"""The development cluster does what the launcher's other tests rely on."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from pathlib import Path

from tests.slurm.devcluster import DEV, DevCluster, start, stop, wait_until


def test_tasks_of_one_job_run_on_two_named_nodes_that_see_their_own_gpus(
    dev_cluster: DevCluster,
) -> None:
    job = dev_cluster.sbatch(
        'srun bash -c \'echo $(hostname) $(getent hosts a100-2 | cut -d" " -f1)'
        " $CUDA_VISIBLE_DEVICES'",
        "--partition=a100",
        "--nodes=2",
        "--ntasks-per-node=2",
        "--gres=gpu:a100_40gb:2",
        "--wait",
    )
    assert sorted(dev_cluster.output(job).splitlines()) == [
        "a100-1 127.0.0.1 0,1",
        "a100-1 127.0.0.1 0,1",
        "a100-2 127.0.0.1 0,1",
        "a100-2 127.0.0.1 0,1",
    ]


def test_a_preempted_job_runs_again_under_its_id(tmp_path: Path) -> None:
    try:
        # Without a grace time: Slurm looks for its end every thirty seconds only.
        cluster = start(tmp_path, "--grace", "0")
        low = cluster.sbatch(
            'echo run ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300',
            "--partition=preempt",
            "--nodelist=h100-[1-2]",
            "--nodes=2",
            "--gres=gpu:h100_80gb:8",
            "--requeue",
        )
        wait_until(lambda: "run 0" in cluster.output(low), "the first job to start")
        high = cluster.sbatch("true", "--partition=h100", "--nodes=2", "--gres=gpu:h100_80gb:8")
        cluster.wait_for(high, "COMPLETED")
        cluster.wait_for(low, "COMPLETED")
        lines = cluster.output(low).splitlines()
        assert [line for line in lines if line.startswith("run")] == ["run 0", "run 1"]
        assert cluster.show(low)["Restarts"] == "1"
    finally:
        stop(tmp_path)


def test_accounting_answers_for_a_finished_job(dev_cluster_accounting: DevCluster) -> None:
    cluster = dev_cluster_accounting
    job = cluster.sbatch("true", "--partition=h100", "--gres=gpu:h100_80gb:1", "--wait")
    query = ["sacct", "-nPX", "-j", job, "--format=State,Account,AllocTRES"]
    wait_until(lambda: "COMPLETED" in cluster.run(*query), "sacct to know the job")
    state, account, tres = cluster.run(*query).strip().split("|")
    assert (state, account) == ("COMPLETED", "dev")
    assert "gres/gpu:h100_80gb=1" in tres


def test_two_clusters_run_side_by_side(
    dev_cluster: DevCluster, dev_cluster_accounting: DevCluster
) -> None:
    first = dev_cluster.run("scontrol", "show", "config")
    second = dev_cluster_accounting.run("scontrol", "show", "config")
    assert _slurmctld_port(first) != _slurmctld_port(second)
    for cluster in (dev_cluster, dev_cluster_accounting):
        assert cluster.run("srun", "--nodelist=a100-2", "hostname") == "a100-2\n"


def test_up_twice_is_one_cluster(dev_cluster: DevCluster) -> None:
    before = _processes(_base(dev_cluster.state))
    again = start(dev_cluster.state)
    assert again.env["SLURM_CONF"] == dev_cluster.env["SLURM_CONF"]
    assert _processes(_base(dev_cluster.state)) == before


def test_a_folder_with_an_odd_name_longer_than_a_socket_may_be_works(tmp_path: Path) -> None:
    state = tmp_path / f"an odd 'folder'\n#{'x' * 80}"
    try:
        cluster = start(state)
        assert cluster.run("srun", "--partition=h100", "--nodes=2", "hostname").split()
        assert (state / "log" / "slurmctld.log").exists()
    finally:
        stop(state)
    assert not Path(cluster.env["SLURM_CONF"]).parents[2].exists()


def test_down_ends_daemons_and_jobs_and_leaves_no_mount(tmp_path: Path) -> None:
    cluster = start(tmp_path / "s")
    try:
        job = cluster.sbatch("trap '' TERM; echo here; setsid sleep 1234 & sleep 4321", "--nodes=2")
        wait_until(lambda: "here" in cluster.output(job), "the job to start")
        base = _base(cluster.state)
        namespaces = {_namespace(pid) for pid in _processes(base)}
        assert len(namespaces) == 6  # munged, slurmctld and four slurmd
    finally:
        stop(cluster.state)
    assert _processes(base) == set()
    assert not namespaces & {_namespace(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_down_ends_what_is_left_of_a_start_that_was_killed(tmp_path: Path) -> None:
    state = tmp_path / "s"
    starting = subprocess.Popen([DEV / "up", "--state", state], stderr=subprocess.DEVNULL)
    controller = state / "processes" / "slurmctld.json"
    wait_until(controller.exists, "slurmctld to start")
    starting.kill()
    starting.wait()
    # As if it had been killed between the daemon's start and the note of it.
    controller.unlink()
    base = _base(state)
    assert _processes(base)
    stop(state)
    assert _processes(base) == set()


def test_down_leaves_a_process_alone_that_has_a_daemons_pid(tmp_path: Path) -> None:
    cluster = start(tmp_path / "s")
    with subprocess.Popen(["sleep", "100"]) as other:
        note = cluster.state / "processes" / "munged.json"
        daemon = json.loads(note.read_text())
        note.write_text(json.dumps({**daemon, "pid": other.pid}))
        stop(cluster.state)
        assert other.poll() is None
        other.kill()
    assert _namespace(daemon["pid"]) == ""


def test_a_daemon_that_was_killed_is_started_again_and_knows_its_jobs(tmp_path: Path) -> None:
    def daemon(*words: str) -> str:
        command = [str(DEV / "daemon"), "--state", str(tmp_path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        cluster = start(tmp_path, "--set", "MinJobAge=2")
        job = cluster.sbatch("sleep 100", "--job-name=kept")
        # What slurmctld has not saved yet it does not know afterwards.
        saved = tmp_path / "state" / "job_state"
        wait_until(lambda: saved.exists() and b"kept" in saved.read_bytes(), "it to be saved")
        cluster.wait_for(job, "RUNNING")
        killed = daemon("kill", "slurmctld")
        assert _namespace(int(killed)) == ""
        assert daemon("start", "slurmctld") != killed
        wait_until(lambda: _answers(cluster), "slurmctld to answer")
        cluster.run("scancel", job)
        # MinJobAge: an ended job is forgotten.
        wait_until(lambda: job not in "".join(cluster.squeue()), "the job to be forgotten")
    finally:
        stop(tmp_path)


def _answers(cluster: DevCluster) -> bool:
    return subprocess.run(["squeue"], env=cluster.env, capture_output=True).returncode == 0


def test_up_names_the_packages_that_are_missing(tmp_path: Path) -> None:
    hide = f"mount -t tmpfs none /usr/sbin && {shlex.quote(str(DEV / 'up'))} --state ."
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends munge slurm-wlm" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_up_asks_for_root(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--user", DEV / "up", "--state", tmp_path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs root" in done.stderr


def _slurmctld_port(config: str) -> str:
    return next(line for line in config.splitlines() if line.startswith("SlurmctldPort"))


def _base(state: Path) -> str:
    """The path by which the cluster's processes know their folder."""
    base = json.loads((state / "cluster.json").read_text())["base"]
    assert isinstance(base, str)
    return base


def _processes(base: str) -> set[int]:
    """Every daemon and job that uses the configuration under `base`.

    Not the commands that ask something of them: those share this process's namespace.
    """
    wanted = f"SLURM_CONF={base}/".encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            pid = int(environ.parent.name)
            if wanted in environ.read_bytes() and _namespace(pid) != _namespace(os.getpid()):
                found.add(pid)
    return found


def _namespace(pid: int) -> str:
    """The mount namespace of a process; '' when it is gone or a zombie."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""
