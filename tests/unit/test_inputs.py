"""What a stage was made from is noted at its first attempt, and held to afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.plan.types import Plan
from launcher.recipe.types import Bound, Data, Resources, Score
from launcher.records import attempts, complete, inputs, journal
from launcher.records.paths import RunPaths
from launcher.run import folder
from launcher.run import inputs as run_inputs
from launcher.run.inputs import stale
from launcher.worker import inputs as on_node
from tests.unit.running import ON_SLURM, ON_THIS_MACHINE

HUB = "owner/model"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, rows, a score function and a hub's cache; this process is rank 0."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "score.py").write_text("def points(text): return 1.0\n")
    publish(tmp_path, OLD)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RANK", "0")
    return tmp_path


def publish(desk: Path, commit: str) -> None:
    """The cache has `commit` as the newest of the hub's model."""
    reference = desk / "hub" / "models--owner--model" / "refs" / "main"
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)


@pytest.fixture
def run(desk: Path) -> tuple[RunPaths, Plan]:
    """sft from a folder, a reward model from a hub name, and an evaluation of both."""
    first, second, *rest = ON_THIS_MACHINE.stages
    rows = Data(str(desk / "rows.jsonl"))
    sft = replace(first.stage, models={"model": str(desk / "model")}, data=rows)
    rm = replace(second.stage, models={"model": HUB}, data=rows, needs=())
    judge = replace(
        rest[-1].stage,
        candidates={"one": "stage:sft"},
        models={"reward_model": "stage:rm"},
        needs=("sft", "rm"),
        scores={"points": Score(f"{desk / 'score.py'}:points")},
        data=rows,
    )
    stages = (
        replace(first, stage=sft),
        replace(second, stage=rm),
        replace(rest[-1], stage=judge),
    )
    plan = replace(ON_THIS_MACHINE, stages=stages)
    made, _ = folder.create(desk / "runs", plan, {"name": "chain"}, new=False)
    return made, plan


def finish(run: RunPaths, stage: str) -> None:
    """Leave a COMPLETE.json of a stage as its last act does."""
    done = complete.Complete(
        stage, "sft", "f00d", time.time(), (), inputs=inputs.digests(run.stage(stage))
    )
    run.stage(stage).root.mkdir(parents=True, exist_ok=True)
    complete.write(run.stage(stage), done)


def test_the_first_attempt_notes_everything_that_the_stage_is_made_from(
    run: tuple[RunPaths, Plan],
) -> None:
    paths, plan = run
    finish(paths, "sft")
    for stage in ("sft", "rm", "eval"):
        assert on_node.changed(paths, plan, stage) is None
    found = {stage: inputs.read(paths.stage(stage)) for stage in ("sft", "rm", "eval")}
    sft, rm, judge = (found[stage] for stage in found)
    assert sft and rm and judge
    assert set(sft.items) == {"recipe", "code", "model", "data.path"}
    assert all(item.digest for item in sft.items.values())
    assert rm.items["model"].digest == OLD
    assert judge.items["candidates.one"].digest == complete.digest(paths.stage("sft").complete)
    assert judge.items["reward_model"].digest == ""
    finish(paths, "rm")
    done = complete.read(paths.stage("rm"))
    assert done and done.inputs["model"] == OLD


def change_data(desk: Path, _run: RunPaths, plan: Plan) -> Plan:
    (desk / "rows.jsonl").write_text('{"text": "two"}\n')
    return plan


def change_model(desk: Path, _run: RunPaths, plan: Plan) -> Plan:
    (desk / "model" / "model.safetensors").write_bytes(b"WEIGHTS")
    return plan


def add_a_shard(desk: Path, _run: RunPaths, plan: Plan) -> Plan:
    (desk / "model" / "model-2.safetensors").write_bytes(b"more")
    return plan


def change_code(_desk: Path, run: RunPaths, plan: Plan) -> Plan:
    (run.code / "launcher" / "errors.py").write_text("changed = True\n")
    return plan


def change_recipe(_desk: Path, _run: RunPaths, plan: Plan) -> Plan:
    stage = plan.stages[0]
    other = replace(stage, stage=replace(stage.stage, gate={"eval_loss": Bound(max=1.0)}))
    return replace(plan, stages=(other, *plan.stages[1:]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_data, "data.path: HERE/rows.jsonl changed"),
        (change_model, "model: HERE/model changed"),
        (add_a_shard, "model: HERE/model changed"),
        (change_code, "the run's copy of the code changed"),
        (change_recipe, "what the recipe says of the stage changed"),
    ],
)
def test_a_change_is_refused_until_it_is_accepted_and_then_is_what_counts(
    change: object, said: str, desk: Path, run: tuple[RunPaths, Plan]
) -> None:
    paths, plan = run
    assert on_node.changed(paths, plan, "sft") is None
    assert stale(paths, plan, "sft") == ()
    assert callable(change)
    plan = change(desk, paths, plan)
    refused = on_node.changed(paths, plan, "sft")
    assert refused is not None
    assert refused.replace(str(desk), "HERE").startswith(said)
    assert refused.endswith(f"launcher resume {paths.root.name} --accept-change")
    assert [move.replace(str(desk), "HERE") for move in stale(paths, plan, "sft")] == [said]
    # Refused again: a refusal accepts nothing.
    assert on_node.changed(paths, plan, "sft") is not None

    journal.append(paths.journal, journal.Event("accepted", time.time()))
    assert stale(paths, plan, "sft") == ()
    assert on_node.changed(paths, plan, "sft") is None
    (desk / "rows.jsonl").write_text('{"text": "three"}\n')
    assert on_node.changed(paths, plan, "sft") is not None


def test_what_is_put_back_is_no_change(desk: Path, run: tuple[RunPaths, Plan]) -> None:
    paths, plan = run
    assert on_node.changed(paths, plan, "sft") is None
    (desk / "rows.jsonl").write_text('{"text": "two"}\n')
    assert stale(paths, plan, "sft")
    (desk / "rows.jsonl").write_text('{"text": "one"}\n')
    assert stale(paths, plan, "sft") == ()
    assert on_node.changed(paths, plan, "sft") is None


def test_a_complete_stage_is_stale_once_what_it_was_made_from_is_another(
    run: tuple[RunPaths, Plan], desk: Path
) -> None:
    paths, plan = run
    for stage in ("sft", "rm", "eval"):
        assert on_node.changed(paths, plan, stage) is None
        finish(paths, stage)
    assert [stale(paths, plan, stage) for stage in ("sft", "rm", "eval")] == [(), (), ()]
    publish(desk, NEW)
    finish(paths, "sft")
    assert stale(paths, plan, "sft") == ()
    assert stale(paths, plan, "rm") == ("model: owner/model changed",)
    assert stale(paths, plan, "eval") == ("candidates.one: stage sft was run again",)
    # COMPLETE.json alone tells it too.
    paths.stage("rm").inputs.unlink()
    assert stale(paths, plan, "rm") == ("model: owner/model changed",)


def test_where_a_stage_runs_and_what_nobody_knows_is_no_change(
    run: tuple[RunPaths, Plan], desk: Path
) -> None:
    paths, plan = run
    assert on_node.changed(paths, plan, "rm") is None
    (desk / "hub" / "models--owner--model" / "refs" / "main").unlink()
    moved = replace(plan.stages[1].stage, resources=Resources(gpus=2))
    plan = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], stage=moved)))
    assert on_node.changed(paths, plan, "rm") is None
    # What was known is not forgotten.
    publish(desk, NEW)
    assert on_node.changed(paths, plan, "rm") is not None


def test_data_that_an_error_asked_to_change_may_change_while_there_is_no_checkpoint(
    run: tuple[RunPaths, Plan], desk: Path
) -> None:
    paths, plan = run
    stage = paths.stage("sft")
    assert on_node.changed(paths, plan, "sft") is None
    receipt = attempts.Attempt(0, "f00d", "1", "here", 1, time.time())
    receipt = attempts.start(stage.attempts, receipt)
    failure = attempts.Failure(0, "no such column", "", kind="user")
    attempts.finish(stage.attempts, replace(receipt, outcome="error", failure=failure))
    (desk / "rows.jsonl").write_text('{"text": "corrected"}\n')
    assert stale(paths, plan, "sft") == ()
    (stage.checkpoints / "checkpoint-4").mkdir(parents=True)
    assert on_node.changed(paths, plan, "sft") is not None
    (stage.checkpoints / "checkpoint-4").rmdir()
    assert on_node.changed(paths, plan, "sft") is None


def test_the_supervisor_refuses_before_a_model_loads_and_its_receipt_says_changed(
    run: tuple[RunPaths, Plan], desk: Path
) -> None:
    paths, plan = run
    assert on_node.changed(paths, plan, "sft") is None
    for kind in ("intent", "submitted"):
        journal.append(paths.journal, journal.Event(kind, time.time(), "sft", "f00d", "1"))
    change_data(desk, paths, plan)
    program = (
        "import sys; from launcher.worker.supervisor import supervise\n"
        f"ended = supervise({str(paths.root)!r}, 'sft', 'f00d', '1', lambda: False)\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(ended.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 86, done.stderr
    (receipt,) = attempts.read(paths.stage("sft").attempts)
    assert (receipt.outcome, receipt.failed) == ("error", "changed")
    assert receipt.failure and "rows.jsonl changed" in receipt.failure.message


def test_a_large_file_is_read_in_blocks_and_its_size_counts(tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    with file.open("wb") as handle:
        handle.truncate(inputs.WHOLE + 1)
    first = inputs.fingerprint(file)
    with file.open("r+b") as handle:
        handle.seek(inputs.WHOLE)
        handle.write(b"x")
    last = inputs.fingerprint(file)
    with file.open("ab") as handle:
        handle.truncate(inputs.WHOLE + 2)
    longer = inputs.fingerprint(file)
    assert len({first.digest, last.digest, longer.digest}) == 3


def test_files_that_look_as_they_did_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("1")
    first = inputs.fingerprint(tmp_path)

    def unread(_path: Path) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(complete, "digest", unread)
    assert inputs.fingerprint(tmp_path, first) == first
    with pytest.raises(AssertionError):
        inputs.fingerprint(tmp_path)


def test_a_command_refuses_before_it_queues_and_names_both_ways_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = RunPaths(tmp_path / "chain-0a1b2c3d")
    monkeypatch.setattr(
        run_inputs, "stale", lambda _run, _plan, name: ("data changed",) if name == "rm" else ()
    )
    with pytest.raises(UsageError, match=r"stage rm of chain-0a1b2c3d: data changed") as refused:
        run_inputs.refuse_changes(run, ON_SLURM)
    assert refused.value.hint is not None
    assert "--accept-change" in refused.value.hint and "--from rm" in refused.value.hint
