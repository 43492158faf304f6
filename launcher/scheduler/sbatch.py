"""A job request as the text of an sbatch script. Pure; the text itself is Submitit's."""

from __future__ import annotations

import shlex
from typing import Any

from submitit.slurm.slurm import _make_sbatch_string

from launcher.cluster.types import Cluster
from launcher.plan.types import Allocation
from launcher.scheduler.jobs import JobRequest

# The variables of the submitting shell that a job sees. Nothing else travels: a token in the
# environment would otherwise lie in the controller's state folder.
EXPORTED = (
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "TZ", "SLURM_CONF",
    "LD_LIBRARY_PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TORCH_EXTENSIONS_DIR",
)  # fmt: skip
# What `launcher advance` may take at the end of a job. Slurm itself kills sooner, after KillWait.
ADVANCE_S = 60
_WELL = "launcher_ended_well"


def parameters(request: JobRequest) -> dict[str, Any]:
    """The keywords that Submitit makes the script from."""
    allocation, cluster = request.allocation, request.cluster
    partition = cluster.partition(allocation.partition)
    extra: dict[str, Any] = {
        "requeue": True,
        "export": ",".join(EXPORTED),
        "chdir": request.folder,
    }
    if cluster.reservation:
        extra["reservation"] = cluster.reservation
    gpus = _gpus(allocation, cluster)
    if gpus and cluster.gpu_request == "gpus-per-node":
        extra["gpus-per-node"] = gpus
    return {
        "job_name": request.name,
        "comment": request.tag,
        "partition": allocation.partition,
        "nodes": allocation.all_nodes,
        "ntasks_per_node": allocation.all_tasks_per_node,
        "cpus_per_task": allocation.cpus_per_task,
        "mem": f"{max(1, round(allocation.host_memory_gib * 1024))}M",
        "gres": f"gpu:{gpus}" if gpus and cluster.gpu_request == "gres" else None,
        "time": allocation.time_minutes,
        "dependency": _dependency(request),
        "account": partition.account or cluster.account,
        "qos": partition.qos or cluster.qos,
        "constraint": cluster.constraint,
        "wckey": None,
        "signal_delay_s": allocation.signal_lead_s,
        "stderr_to_stdout": True,
        "setup": setup(request),
        # 22.05 does not hand --cpus-per-task on to srun, and --export would stop at the script.
        "srun_args": [
            "--export=ALL",
            f"--cpus-per-task={allocation.cpus_per_task}",
            "--kill-on-bad-exit=1",
            # The trainers' tasks fill their nodes before the server's begin.
            *(["--distribution=block"] if allocation.server_gpus else []),
        ],
        "additional_parameters": extra,
    }


def setup(request: JobRequest) -> list[str]:
    """Shell lines before the program: the profile's own, then exports of quoted values."""
    exports = {**request.cluster.env, **request.env, "PYTHONPATH": str(request.code)}
    return [
        *request.cluster.setup,
        "umask 077",
        *(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        *([_trap(request)] if request.advance else []),
    ]


def _trap(request: JobRequest) -> str:
    """The line that lets the script call `launcher advance` when its program did not end well.

    Bash runs it too when the script itself is told to end. It leaves the exit code as it is.
    """
    words = [request.python, "-m", "launcher.cli.main", "advance", str(request.run), "--ended"]
    limit = ["timeout", f"--kill-after={ADVANCE_S // 4}", str(ADVANCE_S)]
    act = f'{shlex.join([*limit, *words])} "$SLURM_JOB_ID" < /dev/null'
    guarded = f'[ -n "${_WELL}" ] || {act}'
    return f"trap -- {shlex.quote(guarded)} EXIT"


def command(request: JobRequest) -> str:
    """What each task runs."""
    words = [request.python, "-u", "-m", "launcher.scheduler.entry"]
    return shlex.join([*words, str(request.run), request.stage, request.token])


def text(request: JobRequest) -> str:
    """The whole script."""
    program = command(request)
    if request.advance:
        # A signal ends the script with the status of whatever stood before its program.
        program += f" && {_WELL}=yes"
    return _make_sbatch_string(command=program, folder=request.logs, **parameters(request))


def _dependency(request: JobRequest) -> str | None:
    kinds = {"afterok": request.dependencies, "afterany": request.after}
    return ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in kinds.items() if ids) or None


def _gpus(allocation: Allocation, cluster: Cluster) -> str | None:
    if allocation.gpu is None:
        return None
    count = str(allocation.all_tasks_per_node)
    return f"{allocation.gpu}:{count}" if cluster.typed else count
