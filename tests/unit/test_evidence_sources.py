"""Evidence is read from one's own receipts and from what others left in the site's ledger."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.plan.document import plan_to_json
from launcher.plan.evidence import Observation
from launcher.plan.observe import observe
from launcher.plan.types import Plan
from launcher.records import attempts, files, ledger
from launcher.records.measurement import STEP, Measurement, PhaseMeasurement
from launcher.records.paths import RunPaths
from launcher.run import evidence
from tests.unit.command import launcher
from tests.unit.planning import chain, plan, recipe, stage

CHAIN = plan(chain("tiny"))
GIB = 2**30


def receipt(reserved: float = 3.0, steps: int = 5, **changed: object) -> attempts.Attempt:
    """An attempt on a GPU; `reserved` in GiB."""
    update = PhaseMeasurement({"device reserved": int(reserved * GIB)}, steps, 0.5, 1.0)
    measured = Measurement({"update": update, STEP: PhaseMeasurement({}, steps, 0.6, 1.1)})
    made = attempts.Attempt(
        number=1,
        token=os.urandom(8).hex(),
        job_id="7",
        host="node",
        processes=1,
        started=1e9,
        ended=time.time(),
        outcome="complete",
        peak_bytes=measured.peak_bytes,
        measured=measured,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def made_run(runs: Path, name: str, plan: Plan, receipts: Mapping[str, attempts.Attempt]) -> None:
    run = RunPaths(files.private_folder(runs / name))
    run.plan.write_text(plan_to_json(plan))
    for stage_name, each in receipts.items():
        attempts.start(run.stage(stage_name).attempts, each)


def test_receipts_are_paired_with_what_their_own_plan_said(tmp_path: Path) -> None:
    made_run(tmp_path, "one", CHAIN, {"sft": receipt(), "ppo": receipt(4.0)})
    found = {each.kind.method: each for each in evidence.gather(tmp_path, None).observations}
    assert set(found) == {"sft", "ppo"}
    assert found["ppo"].measured == 4 * GIB
    peak = max(phase.reserved for phase in CHAIN.stage("ppo").estimate.phases)
    assert found["ppo"].predicted == peak
    assert found["ppo"].formula == CHAIN.stage("ppo").calibration.formula != ""


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sft", {"ended": None, "outcome": None}),
        ("sft", {"outcome": "error", "measured": None}),
        ("sft", {"outcome": "killed", "peak_bytes": {"host": 5}}),
        ("eval", {"outcome": "stopped"}),
    ],
)
def test_an_attempt_that_did_not_come_to_its_peak_says_nothing(
    name: str, changed: dict[str, object]
) -> None:
    assert observe(CHAIN, CHAIN.stage(name), receipt(**changed)) is None  # type: ignore[arg-type]


def test_a_stopped_training_tells_after_two_steps_and_one_that_ran_out_at_once() -> None:
    sft = CHAIN.stage("sft")
    assert observe(CHAIN, sft, receipt(outcome="stopped")) is not None
    first = receipt(steps=1, outcome="error")
    assert observe(CHAIN, sft, first) is None
    assert first.measured is not None
    died = replace(first, measured=replace(first.measured, out_of_memory=True))
    found = observe(CHAIN, sft, died)
    assert found is not None
    assert found.at_least


def test_short_rows_are_held_against_what_the_formula_says_of_short_rows() -> None:
    given = plan(recipe(stage(model="Qwen/Qwen2.5-7B")))
    planned = given.stages[0]
    tokens = planned.calibration.tokens
    assert tokens == planned.micro_batch * 1024
    whole = receipt(20.0)
    assert whole.measured is not None
    half = replace(whole, measured=replace(whole.measured, tokens=tokens // 2))
    long, short = (observe(given, planned, each) for each in (whole, half))
    assert long is not None
    assert short is not None
    peak = planned.estimate.peak
    dynamic = peak.items["activations"]
    assert long.predicted - short.predicted >= dynamic // 2 - 1
    assert short.predicted > peak.items["weights"] + peak.items["optimizer"]


def test_an_older_launchers_receipt_and_plan_are_read_and_say_nothing(tmp_path: Path) -> None:
    made_run(tmp_path, "one", CHAIN, {"sft": receipt()})
    path = tmp_path / "one" / "stages" / "sft" / "attempts" / "1.json"
    old = json.loads(path.read_text())
    del old["measured"]
    path.write_text(json.dumps(old))
    (read,) = attempts.read(path.parent)
    assert (read.measured, read.steps, read.tokens) == (None, 0, None)
    older = json.loads(plan_to_json(CHAIN))
    for each in older["stages"]:
        del each["calibration"]
    (tmp_path / "one" / "plan.json").write_text(json.dumps(older))
    assert evidence.gather(tmp_path, None).observations == ()


def test_a_spoiled_run_is_left_out(tmp_path: Path) -> None:
    made_run(tmp_path, "good", CHAIN, {"sft": receipt()})
    made_run(tmp_path, "bad-plan", CHAIN, {"sft": receipt()})
    (tmp_path / "bad-plan" / "plan.json").write_text("{")
    made_run(tmp_path, "bad-receipt", CHAIN, {"sft": receipt()})
    (tmp_path / "bad-receipt" / "stages" / "sft" / "attempts" / "1.json").write_text("[]")
    (tmp_path / "stray").write_text("")
    assert len(evidence.gather(tmp_path, None).observations) == 1
    assert evidence.gather(tmp_path / "absent", str(tmp_path / "none")).observations == ()


def test_what_is_shared_counts_once_and_outlives_the_run(tmp_path: Path) -> None:
    runs, shared = tmp_path / "runs", tmp_path / "ledger"
    made_run(runs, "one", CHAIN, {"sft": receipt(), "rm": receipt()})
    assert evidence.share(runs, shared) == (2, 2)
    assert evidence.share(runs, shared) == (0, 2)
    both = evidence.gather(runs, str(shared))
    assert len(both.observations) == 2
    alone = evidence.gather(tmp_path / "none", str(shared))
    assert alone.digest == both.digest
    (own,) = shared.iterdir()
    assert own.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in own.iterdir()} == {0o644}
    text = "".join(path.read_text() for path in own.iterdir())
    assert str(tmp_path) not in text and "chain" not in text


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A ledger with one observation of another user's."""
    if os.getuid() != 0:
        pytest.skip("only root can give a file to another user")
    runs = tmp_path / "theirs"
    made_run(runs, "one", CHAIN, {"sft": receipt()})
    evidence.share(runs, tmp_path / "ledger")
    theirs = (tmp_path / "ledger" / f"u{os.getuid()}").rename(tmp_path / "ledger" / "u4242")
    for path in (*theirs.iterdir(), theirs):
        os.chown(path, 4242, 4242)
    return tmp_path / "ledger"


def test_others_are_known_by_the_owner_of_folder_and_file(shared: Path) -> None:
    (found,) = evidence.gather(Path("none"), str(shared)).observations
    assert found.user == 4242
    (path,) = (shared / "u4242").iterdir()
    os.chown(path, 4343, 4343)
    assert evidence.gather(Path("none"), str(shared)).observations == ()
    os.chown(shared / "u4242", 4343, 4343)
    assert evidence.gather(Path("none"), str(shared)).observations == ()


def test_nothing_but_small_plain_files_is_read(shared: Path, tmp_path: Path) -> None:
    folder = shared / "u4242"
    (path,) = folder.iterdir()
    canary = tmp_path / "canary.json"
    path.rename(canary)
    (folder / "link.json").symlink_to(canary)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "large.json").write_bytes(canary.read_bytes() + b" " * 4096)
    (folder / "text.json").write_text("__import__('os').system('false')")
    (folder / "nan.json").write_text(canary.read_text().replace('"when":', '"when":1e999,"x":'))
    for each in folder.iterdir():
        os.chown(each, 4242, 4242, follow_symlinks=False)
    assert evidence.gather(Path("none"), str(shared)).observations == ()


def test_a_ledger_full_of_files_is_read_up_to_a_limit(shared: Path) -> None:
    folder = shared / "u4242"
    (path,) = folder.iterdir()
    said = json.loads(path.read_text())
    for number in range(2000):
        each = folder / f"{number:012d}-x.json"
        each.write_text(json.dumps({**said, "run": f"{number:016x}"}))
        os.chown(each, 4242, 4242)
    assert len(list(ledger.read(shared, Observation))) == ledger.FILES_OF_USER


def test_a_folder_that_another_user_made_in_ones_name_is_not_written_to(shared: Path) -> None:
    own = shared / f"u{os.getuid()}"
    own.mkdir()
    os.chown(own, 4242, 4242)
    with pytest.raises(PermissionError):
        ledger.add(shared, 1.0, "x", {})


def test_reading_many_attempts_takes_little_more_than_reading_their_files(tmp_path: Path) -> None:
    for number in range(250):
        every = dict.fromkeys(("sft", "rm", "ppo", "eval"), receipt())
        named = {name: replace(each, token=f"{number}{name}") for name, each in every.items()}
        made_run(tmp_path, f"run-{number}", CHAIN, named)
    assert len(evidence.gather(tmp_path, None).observations) == evidence.OWN_ATTEMPTS

    def floor() -> None:
        for path in list(tmp_path.rglob("attempts/*.json"))[: evidence.OWN_ATTEMPTS]:
            json.loads(path.read_bytes())

    def spent(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    # Of turns side by side the best: other programs share this processor.
    ratios = [spent(lambda: evidence.gather(tmp_path, None)) / spent(floor) for _ in range(5)]
    assert min(ratios) <= 3


def test_the_command_shows_shares_and_says_what_is_missing(tmp_path: Path) -> None:
    made_run(tmp_path / "runs", "one", CHAIN, {"sft": receipt()})
    words = launcher("calibrate", folder=tmp_path).out
    assert "sft full zero-3 cuda" in words or "sft full no ZeRO cuda" in words
    refused = launcher("calibrate", "--share", folder=tmp_path, code=2)
    assert "there is no ledger" in refused.err
    env = {"LAUNCHER_LEDGER": str(tmp_path / "ledger")}
    assert "1 of 1 runs were new" in launcher("calibrate", "--share", folder=tmp_path, env=env).err
    data = launcher("calibrate", "--json", folder=tmp_path, env=env).data("calibration")
    assert data["evidence"] == evidence.gather(tmp_path / "runs", None).digest
    assert [row["runs"] for row in data["kinds"]] == [1]


def test_nothing_measured_is_no_error(tmp_path: Path) -> None:
    ended = launcher("calibrate", folder=tmp_path)
    assert ended.out == ""
    assert "no run has measured anything" in ended.err
