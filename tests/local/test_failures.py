"""What goes wrong on a node is answered there: the same again, less memory, or the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from launcher.worker.deadlines import TERM_S
from launcher.worker.supervision.follow import CLOSING_S
from tests.local.machine import ENDLESS, LOAD_S, RECIPES, TINY_SFT, LocalShell
from tests.slurm.devcluster import wait_until

SUPERVISOR = "launcher.scheduler.entry"
TRAINER = "launcher.worker.train"
SAVES_NOTHING = "stages.sft.train.save_steps=100000"
STEPS = 24
# What a loaded machine may take for two starts.
PATIENCE_S = 2 * LOAD_S
SHORT = f"stages.sft.train.max_steps={STEPS}"
TWO = "stages.sft.resources.gpus=2"


def weights(shell: LocalShell, run: str) -> bytes:
    return (shell.runs / run / "stages" / "sft" / "model" / "model.safetensors").read_bytes()


def ended(shell: LocalShell, run: str, stage: str = "sft") -> list[tuple[Any, ...]]:
    """Outcome, class and answer of each attempt at a stage that is over."""
    shell.outcomes(run, stage)
    found = shell.attempts(run, stage)
    return [(each["outcome"], each["failed"], each["answer"]) for each in found]


@pytest.mark.long
def test_a_rank_that_is_killed_goes_on_in_the_same_job(shell: LocalShell) -> None:
    run = shell.data("submit", TINY_SFT, SHORT, TWO)["run"]
    shell.wait_for_steps(run, 5)
    os.kill(shell.processes(run, TRAINER)[1], signal.SIGKILL)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    assert ended(shell, run) == [("killed", "lost rank", "again"), ("complete", None, None)]
    first, second = shell.attempts(run)
    assert first["job_id"] == second["job_id"]
    assert [first["round"], second["round"]] == [0, 1]
    assert "was killed by signal 9" in first["failure"]["message"]
    # The tiny recipe saves every four steps: none before the last of those was done again.
    assert second["began_at"] == first["reached"] >= 4
    steps = shell.steps(run)
    assert steps[-1] == STEPS and set(steps) == set(range(1, STEPS + 1))
    assert [steps.count(step) for step in range(1, first["reached"] + 1)] == [1] * first["reached"]


@pytest.mark.long
def test_a_first_supervisor_that_is_killed_does_not_leave_the_others_waiting(
    shell: LocalShell,
) -> None:
    run = shell.data("submit", TINY_SFT, SHORT, TWO)["run"]
    shell.wait_for_steps(run, 5)
    first = shell.processes(run, SUPERVISOR)[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(shell.attempts(run)) == 2, "another start", CLOSING_S / 2)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    assert ended(shell, run) == [("killed", "node", "requeue"), ("complete", None, None)]
    assert len({each["job_id"] for each in shell.attempts(run)}) == 2


@pytest.mark.long
def test_a_trainer_that_hangs_is_ended_in_time_and_started_again(shell: LocalShell) -> None:
    # A save is given an hour.
    words = ("stages.sft.resources.hang_timeout=8s", "stages.sft.train.max_steps=300")
    run = shell.data("submit", TINY_SFT, *words, SAVES_NOTHING)["run"]
    shell.wait_for_steps(run, 5)
    (trainer,) = shell.processes(run, TRAINER)
    os.kill(trainer, signal.SIGSTOP)
    wait_until(lambda: not Path(f"/proc/{trainer}").exists(), "its end", 8 + 15)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    assert ended(shell, run) == [("killed", "hang", "again"), ("complete", None, None)]
    assert "gave no sign of life" in shell.attempts(run)[0]["failure"]["message"]


@pytest.mark.long
def test_a_trainer_that_ignores_a_stop_is_ended_and_its_last_checkpoint_serves(
    shell: LocalShell,
) -> None:
    run = shell.data("submit", TINY_SFT, SHORT)["run"]
    shell.wait_for_steps(run, 5)
    (trainer,) = shell.processes(run, TRAINER)
    os.kill(trainer, signal.SIGSTOP)
    for supervisor in shell.processes(run, SUPERVISOR):
        os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{trainer}").exists(), "its end", TERM_S + 15)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    first, second = shell.attempts(run)
    assert [first["outcome"], first["answer"]] == ["terminated", "requeue"]
    assert second["began_at"] == first["reached"] >= 4
    assert second["job_id"] != first["job_id"]


def test_a_stop_while_loading_is_no_error_and_trains_no_step(shell: LocalShell) -> None:
    run = shell.data("submit", TINY_SFT, SHORT)["run"]
    wait_until(lambda: bool(shell.processes(run, TRAINER)), "a trainer", LOAD_S)
    for supervisor in shell.processes(run, SUPERVISOR):
        os.kill(supervisor, signal.SIGUSR2)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    assert ended(shell, run) == [("stopped", "preempted", "requeue"), ("complete", None, None)]
    first = shell.attempts(run)[0]
    assert first["reached"] == 0
    assert shell.steps(run) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.long
def test_a_signal_to_one_rank_alone_stops_all_while_loading_too(
    shell: LocalShell, told: int
) -> None:
    run = shell.data("submit", TINY_SFT, SHORT, TWO)["run"]
    wait_until(lambda: len(shell.processes(run, TRAINER)) == 2, "two trainers", LOAD_S)
    os.kill(shell.processes(run, SUPERVISOR)[told], signal.SIGUSR2)
    shell.wait_for_state(run, "complete", PATIENCE_S)
    (_, failed, answer), (outcome, _, _) = ended(shell, run)
    assert (failed, answer, outcome) == ("preempted", "requeue", "complete")
    assert shell.steps(run) == list(range(1, STEPS + 1))


def test_a_loss_that_is_no_number_ends_the_stage_without_a_checkpoint_of_it(
    shell: LocalShell,
) -> None:
    # Random states of step 1 are fine; what AdamW makes of them is not.
    words = ("stages.sft.train.learning_rate=1e30", "stages.sft.train.save_steps=1")
    run = shell.data("submit", TINY_SFT, SHORT, *words, "stages.sft.train.max_grad_norm=0")["run"]
    shell.wait_for_state(run, "failed", PATIENCE_S)
    assert ended(shell, run) == [("error", "nan", "end")]
    (found,) = shell.attempts(run)
    message = found["failure"]["message"]
    assert "is not a finite number; the last finite one was" in message
    step = int(message.split("the loss of step ")[1].split()[0])
    saved = (shell.runs / run / "stages" / "sft" / "checkpoints").glob("checkpoint-*")
    assert max(int(path.name.split("-")[1]) for path in saved) == step - 1
    assert message in shell.stage(run)["reason"]


def test_an_error_that_would_come_again_is_tried_once(shell: LocalShell) -> None:
    bad = shell.home / "score.py"
    bad.write_text("def score(prompts, completions, **_):\n    raise KeyError('chosen')\n")
    recipe = shell.home / "own.yaml"
    recipe.write_text(
        f"launcher: 1\nname: own\nextends: ['{RECIPES}/tiny/ppo']\n"
        "stages: {eval: {scores: {mine: './score.py:score'}}}\n"
    )
    uses = [f"stages.{name}.use={RECIPES / 'tiny' / 'model'}" for name in ("sft", "ppo")]
    run = shell.data("submit", str(recipe), *uses)["run"]
    shell.wait_for_state(run, "failed", PATIENCE_S)
    (failed,) = ended(shell, run, "eval")
    assert failed == ("error", "user", "end")
    assert f"{bad}:2 score: KeyError: 'chosen'" in shell.stage(run, "eval")["reason"]


# In the trainer: from the start of the training on no memory more than there is.
STARVE = """
import os, sys, threading, time

def starve(folder):
    import resource
    began = time.time()
    while True:
        time.sleep(0.01)
        try:
            with open(folder + "/progress.json") as file:
                # Not what the round before left.
                own = os.fstat(file.fileno()).st_mtime > began
                if own and '"phase": "train"' in file.read():
                    break
        except FileNotFoundError:
            pass
    with open("/proc/self/status") as file:
        data = next(int(l.split()[1]) for l in file if l.startswith("VmData:")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))

words = sys.orig_argv
if "launcher.worker.train" in words:
    run, stage, token, _, rung = words[words.index("launcher.worker.train") + 1:]
    if int(rung) < {rungs}:
        folder = os.path.join(run, "stages", stage)
        threading.Thread(target=starve, args=(folder,), daemon=True).start()
"""


@pytest.mark.long
def test_a_stage_out_of_memory_climbs_the_ladder_in_its_job_and_keeps_its_batch(
    shell: LocalShell,
) -> None:
    words = ("submit", TINY_SFT, "stages.sft.train.max_steps=8", SAVES_NOTHING)
    run = shell.data(*words)["run"]
    (shell.runs / run / "code" / "sitecustomize.py").write_text(STARVE.replace("{rungs}", "1"))
    shell.wait_for_state(run, "complete", PATIENCE_S)
    assert ended(shell, run) == [("error", "out of memory", "rung"), ("complete", None, None)]
    first, second = shell.attempts(run)
    assert [first["rung"], second["rung"]] == [0, 1]
    assert first["job_id"] == second["job_id"]
    assert first["reached"] == 0
    arguments = (shell.runs / run / "stages" / "sft" / "args.yaml").read_text()
    micro = int(arguments.split("per_device_train_batch_size: ")[1].split()[0])
    accumulation = int(arguments.split("gradient_accumulation_steps: ")[1].split()[0])
    assert micro < 16 and micro * accumulation == 16
    pinned = f"stages.sft.resources.micro_batch={micro}"
    undisturbed = shell.data(*words, pinned, "--new", "--wait")["run"]
    assert weights(shell, run) == weights(shell, undisturbed)


@pytest.mark.long
def test_a_stage_that_never_has_enough_memory_ends_at_the_ladders_end(shell: LocalShell) -> None:
    run = shell.data("submit", TINY_SFT, ENDLESS, SAVES_NOTHING)["run"]
    (shell.runs / run / "code" / "sitecustomize.py").write_text(STARVE.replace("{rungs}", "99"))
    shell.wait_for_state(run, "failed", PATIENCE_S)
    found = ended(shell, run)
    assert {failed for _, failed, _ in found} == {"out of memory"}
    assert [answer for _, _, answer in found] == ["rung"] * (len(found) - 1) + ["end"]
    assert [each["rung"] for each in shell.attempts(run)] == list(range(len(found)))
