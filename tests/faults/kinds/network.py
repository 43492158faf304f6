"""What is not to be had over the network, and ports that are taken."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from tests.faults.case import Case
from tests.faults.fault import Missed, fault
from tests.faults.scenes import SFT, TWO


@fault("the model hub cannot be reached", SFT, redo=0)
def hub(case: Case) -> None:
    """A training that has what it needs does not ask for it."""
    with socket.socket() as deaf:
        # It takes connections and never answers, which is worse than a refusal.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        case.submit({"env": {"HF_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}"}})
        case.until_step(case.draw_step())
        case.hit(f"no hub, and step {case.step()} is done")


@fault("another program has the rendezvous port", TWO, redo=0)
def port(case: Case) -> None:
    """The port is made of the job's id: the next jobs' are taken before they start."""
    last = int(case.site.slurm("sbatch", "--parsable", "--hold", "--output=/dev/null",
                               "--wrap=true").split()[0])  # fmt: skip
    case.site.slurm("scancel", str(last))
    with ExitStack() as held:
        taken = []
        for job in range(last + 1, last + 4):
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("0.0.0.0", 20_000 + job % 10_000))
                listener.listen(8)
                taken.append(20_000 + job % 10_000)
            except OSError:
                continue
        case.submit()
        trainer = case.until_trainer()
        words = open(f"/proc/{trainer.pid}/environ", "rb").read().split(b"\0")  # noqa: PTH123, SIM115
        wanted = next((w for w in words if w.startswith(b"SLURM_JOB_ID=")), b"=0")
        number = 20_000 + int(wanted.partition(b"=")[2]) % 10_000
        if number not in taken:
            raise Missed(f"port {number} was not taken")
        case.hit(f"port {number} was taken when the trainer of job {case.job()} started")
        case.until_step(1)
