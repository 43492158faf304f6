"""Checkpoints of real trainings: killed while they are written, damaged, foreign, and exact."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from launcher.errors import LauncherError
from launcher.records import checkpoints
from launcher.records.paths import RunPaths
from launcher.run import folder
from launcher.worker import checkpoint, methods, models
from launcher.worker.context import Context
from launcher.worker.stop import Stop
from tests.train.attempts import Fault, attempts, run
from tests.train.offline import prepare, trained
from tests.train.online import ROOT, Trained, train
from tests.train.tiny_models import BASE

KILLED = -signal.SIGKILL
STOPPED = 85
pytestmark = pytest.mark.timeout(1200)  # the first ZeRO run compiles an operator of DeepSpeed's
# Dropout, so that the random state of every rank shows in the weights.
DROPS = ("peft.r=4", "peft.dropout=0.3")
TWO = ("resources.gpus=2", "resources.micro_batch=2", "global_batch=8")


def steps(made: Trained) -> list[int]:
    return [each.step for each in checkpoints.committed(made.paths.checkpoints)]


def began_at(made: Trained) -> list[int]:
    """The steps that attempts went on from, of those that went on from one."""
    log = (made.run.root / "rank0.log").read_text()
    return [int(step) for step in re.findall(r"goes on from \S*checkpoint-(\d+)\n", log)]


def names(checkpoint: Path) -> set[str]:
    """The files that a checkpoint's COMMIT.json vouches for."""
    return {file.path for file in checkpoints.read(checkpoint).files}


WHILE_WRITING = Fault((("open", r"writing-\w+/checkpoint-4/trainer_state.json"),))
BEFORE_COMMIT = Fault((("open", r"writing-\w+/checkpoint-4/\.COMMIT.json"),))
BEFORE_RENAME = Fault((("os.rename", r"writing-\w+/checkpoint-4'"),))
BEFORE_PRUNING = Fault((("os.rename", r"/checkpoint-2'.*pruned"),))
WHILE_PRUNING = Fault((("shutil.rmtree", r"pruned"), *(("os.remove", ""),) * 3))
OTHER_RANK = Fault((("open", r"writing-\w+/checkpoint-10/rng_state_1"),), rank=1)


@pytest.mark.parametrize("zero", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_trainer_that_is_killed_while_it_saves_ends_with_the_same_weights(
    tmp_path: Path, zero: int
) -> None:
    asked = ("train.max_steps=12", "train.save_steps=2", f"resources.zero_stage={zero}")
    whole = prepare(tmp_path / "whole", "sft", *asked, *TWO, *DROPS)
    made = prepare(tmp_path / "killed", "sft", *asked, *TWO, *DROPS)
    faults = (
        WHILE_WRITING, BEFORE_COMMIT, BEFORE_RENAME, BEFORE_PRUNING, WHILE_PRUNING, OTHER_RANK, None
    )  # fmt: skip
    *killed, ended, undisturbed = run(*attempts(made, 2, *faults), *attempts(whole, 2, None))
    assert [KILLED in codes for codes in killed] == [True] * 6, made.log
    assert (ended, undisturbed) == ([0, 0], [0, 0]), made.log
    assert began_at(made) == [2, 2, 2, 6, 8, 8]
    assert made.weights == whole.weights
    assert steps(made) == [10, 12]
    assert not list(made.paths.checkpoints.glob(".*"))


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


SHORT = ("train.max_steps=6", "train.save_steps=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("whole"), "sft", *SHORT, *DROPS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run with checkpoints after steps 2 and 4 of 6."""
    root = tmp_path_factory.mktemp("stopped")
    assert not train(prepare(root, "sft", *SHORT, *DROPS), stop_after=4)
    return root


@pytest.fixture
def parts(stopped: Path, tmp_path: Path) -> Trained:
    """A copy of that run."""
    shutil.copytree(stopped, tmp_path / "parts")
    (run_folder,) = (tmp_path / "parts" / "runs").iterdir()
    made = Trained(RunPaths(run_folder), "sft")
    assert steps(made) == [2, 4]
    return made


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_model.safetensors", cut),
        ("trainer_state.json", empty),
        ("optimizer.pt", flip),
        ("rng_state.pth", Path.unlink),
        ("COMMIT.json", Path.unlink),
        ("COMMIT.json", cut),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_serves(
    whole: Trained,
    parts: Trained,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], object],
) -> None:
    damage(parts.paths.checkpoints / "checkpoint-4" / name)
    assert train(parts)
    assert re.search(rf"checkpoint-4 is not used: .*{name}", capsys.readouterr().out)
    assert parts.weights == whole.weights
    assert steps(parts) == [4, 6]
    assert (parts.paths.checkpoints / "checkpoint-4.bad").is_dir()


def test_the_tokens_that_have_trained_are_counted_on_after_a_stop(
    whole: Trained, parts: Trained
) -> None:
    assert train(parts)
    assert parts.metrics[5]["num_tokens"] == whole.metrics[5]["num_tokens"] > 0


def test_a_training_without_a_whole_checkpoint_begins_anew(whole: Trained, parts: Trained) -> None:
    for step in (2, 4):
        flip(parts.paths.checkpoints / f"checkpoint-{step}" / "optimizer.pt")
    assert train(parts)
    assert parts.weights == whole.weights
    assert len(parts.metrics) == 4 + 6


# What is refused


def test_checkpoints_that_others_could_write_are_not_loaded(parts: Trained) -> None:
    plan = folder.load_plan(parts.run)
    context = Context(parts.run, plan, plan.stage("sft"), "token", "1", 0, 1, 0, 0.0)
    assert checkpoint.resume(context) == str(parts.paths.checkpoints / "checkpoint-4")
    parts.paths.checkpoints.chmod(0o777)
    with pytest.raises(LauncherError, match="can be written by others"):
        checkpoint.resume(context)
    assert steps(parts) == [2, 4]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("resources.gpus=2", "global_batch=16"), "by 1 process, the plan has 2"),
        (("resources.zero_stage=2",), "of ZeRO 0, the plan has ZeRO 2"),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused_before_a_model_is_loaded(
    stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, ...],
    why: str,
) -> None:
    made = prepare(tmp_path, "sft", *SHORT, *DROPS, *change)
    (before,) = (stopped / "runs").glob("*/stages/sft/checkpoints")
    shutil.copytree(before, made.paths.checkpoints, dirs_exist_ok=True)
    monkeypatch.setattr(models, "causal", lambda *_: pytest.fail("a model was loaded"))
    plan = folder.load_plan(made.run)
    world = plan.stage("sft").allocation.processes
    context = Context(made.run, plan, plan.stage("sft"), "token", "1", 0, world, 0, 0.0)
    with pytest.raises(LauncherError, match=why):
        methods.run(context, Stop())


# The best


def test_the_best_checkpoint_is_kept_by_its_name_and_loaded_when_it_is_whole(
    tmp_path: Path,
) -> None:
    rows = (ROOT / "recipes" / "tiny" / "data" / "sft.jsonl").read_text().splitlines()[:8]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("\n".join(rows))
    asked = (
        f"data.eval_path={held_out}",
        "train.max_steps=10",
        "train.save_steps=2",
        "train.eval_strategy=steps",
        "train.eval_steps=2",
        "train.load_best_model_at_end=true",
        # The loss falls, so that the first is the best by this.
        "train.metric_for_best_model=eval_loss",
        "train.greater_is_better=true",
    )
    made = prepare(tmp_path, "sft", *asked)
    # The ranks agree after every step, and after the evaluations of steps 2, 4 and 6.
    assert not train(made, stop_after=8 + 3)
    best = made.paths.checkpoints / "checkpoint-2"
    assert steps(made) == [2, 6, 8]
    for path in (best, made.paths.checkpoints / "checkpoint-8"):
        assert f'"best_model_checkpoint": "{best}"' in (path / "trainer_state.json").read_text()
    flip(best / "model.safetensors")
    with pytest.raises(LauncherError, match=r"best checkpoint.*model.safetensors is not what"):
        train(made)
    flip(best / "model.safetensors")
    # It has done its last step; what comes after that is not lost.
    assert steps(made)[-1] == 10 and train(made)
    assert made.weights == (best / "model.safetensors").read_bytes()


# Exactness


def test_a_stop_in_the_middle_of_an_accumulation_changes_no_weight(tmp_path: Path) -> None:
    # 2 × 2 × 2 rows a step; the epoch ends with step 24.
    asked = ("train.max_steps=28", "train.save_steps=100", *TWO, *DROPS)
    whole = prepare(tmp_path / "whole", "sft", *asked)
    made = prepare(tmp_path / "parts", "sft", *asked)
    one_rank = Fault((("training_step", 2 * 22 + 1),), rank=1, signal=signal.SIGUSR2)
    at_the_end = Fault((("training_step", 2 * 1 + 1),), rank=0, signal=signal.SIGUSR2)
    first, second, *ended = run(
        *attempts(made, 2, one_rank, at_the_end, None), *attempts(whole, 2, None)
    )
    assert (first, second) == ([STOPPED] * 2, [STOPPED] * 2), made.log
    assert ended == [[0, 0], [0, 0]], made.log
    assert began_at(made) == [23, 25]
    assert made.weights == whole.weights
    assert made.logged("loss") == whole.logged("loss")
    newest = names(made.paths.checkpoints / "checkpoint-25")
    assert newest >= {
        "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json",
        "rng_state_0.pth", "rng_state_1.pth",
    }  # fmt: skip
    assert "training_args.bin" not in newest


@pytest.mark.long
@pytest.mark.parametrize("zero", [0, 2])
def test_ppo_that_is_stopped_between_the_epochs_of_a_rollout_goes_on_with_it(
    tmp_path: Path, zero: int
) -> None:
    torch.manual_seed(5)
    judge = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
    judge.save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "judge")
    asked = (
        f"policy={BASE}",
        f"reward_model={tmp_path / 'judge'}",
        "train.max_steps=6",
        "train.save_steps=100",
        "train.learning_rate=1e-2",
        "resources.gpus=2",
        "resources.micro_batch=4",
        f"resources.zero_stage={zero}",
    )
    alone = tuple(f"stages.{stage}=null" for stage in ("sft", "rm", "eval"))
    whole, made = (
        prepare(tmp_path / name, "ppo", *asked, recipe="tiny/ppo", wide=alone)
        for name in ("whole", "parts")
    )
    # Two epochs over a rollout are two steps, and a step is two micro-batches of each rank.
    third_step = Fault((("training_step", 2 * 2 + 1),), rank=1, signal=signal.SIGUSR2)
    first, *ended = run(*attempts(made, 2, third_step, None), *attempts(whole, 2, None))
    assert first == [STOPPED] * 2, made.log
    assert ended == [[0, 0], [0, 0]], made.log
    assert began_at(made) == [3]
    assert made.weights == whole.weights
    assert made.logged("loss/value_avg") == whole.logged("loss/value_avg")
    assert names(made.paths.checkpoints / "checkpoint-3") >= {
        "value_head.safetensors", "rollout_0.safetensors", "rollout_1.safetensors",
        "rng_state_0.pth", "rng_state_1.pth",
    }  # fmt: skip
