"""Pickles that somebody planted are not read, and code beside models and data is not run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.records import complete, files
from launcher.records.paths import RunPaths
from launcher.run import folder
from launcher.worker import trust
from tests.attacks.canary import Canary
from tests.unit.command import ROOT, launcher
from tests.unit.running import ON_THIS_MACHINE

TINY = ROOT / "recipes" / "tiny" / "model"
CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}


def copy(place: Path) -> Path:
    """The tiny model, in a folder of its own."""
    shutil.copytree(TINY, place)
    return place


def pickled(place: Path, canary: Canary, name: str = "pytorch_model.bin") -> Path:
    """A model whose weights are an attacker's pickle."""
    copy(place)
    for weights in place.glob("*.safetensors*"):
        weights.unlink()
    (place / name).write_bytes(canary.pickle)
    return place


def with_code(place: Path, canary: Canary, kind: str | None = None) -> Path:
    """A model that brings code of its own; `kind`: a type of model that no library knows."""
    copy(place)
    config = json.loads((place / "config.json").read_text())
    config["auto_map"] = CODE
    if kind is not None:
        config["model_type"] = kind
    (place / "config.json").write_text(json.dumps(config))
    tokens = json.loads((place / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["evil.Tokens", "evil.Tokens"]}
    (place / "tokenizer_config.json").write_text(json.dumps(tokens))
    (place / "evil.py").write_text(canary.python)
    return place


def test_nothing_of_it_is_run_when_a_node_loads_it(canary: Canary, tmp_path: Path) -> None:
    pickled(tmp_path / "policy-pickled", canary)
    pickled(tmp_path / "policy-old", canary, "model.bin")
    pickled(tmp_path / "reward-pickled", canary)
    config = tmp_path / "reward-pickled" / "config.json"
    named = {**json.loads(config.read_text()), "id2label": {"0": "score"}}
    named["architectures"] = ["LlamaForSequenceClassification"]
    config.write_text(json.dumps(named))
    for name in ("policy-code", "tokenizer-code"):
        with_code(tmp_path / name, canary)
    with_code(tmp_path / "policy-unknown", canary, "evil")
    with_code(tmp_path / "tokenizer-unknown", canary, "evil")
    rows = tmp_path / "data-script"
    rows.mkdir()
    (rows / "data-script.py").write_text(canary.python)
    both = tmp_path / "data-both"
    both.mkdir()
    (both / "data-both.py").write_text(canary.python)
    (both / "rows.jsonl").write_text('{"text": "one"}\n')
    states = copy(tmp_path / "checkpoint-1")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (states / name).write_bytes(canary.pickle)
    state = {"global_step": 1, "max_steps": 2, "epoch": 0.5, "train_batch_size": 8}
    (states / "trainer_state.json").write_text(json.dumps(state))
    names = sorted(path.name for path in tmp_path.iterdir() if "-" in path.name)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("on_node.py"), tmp_path, TINY, *names],
        capture_output=True, text=True, timeout=300, cwd=ROOT, input="y\n" * 100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not canary.sang, found
    assert set(found) == set(names)
    loaded = {name for name, what in found.items() if what == "loaded"}
    # What has a class of the library's own is loaded by that, without the code beside it.
    assert loaded <= {"policy-code", "tokenizer-code", "tokenizer-unknown", "data-both"}, found


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-2.bin", "x.ckpt"])
def test_a_model_in_a_pickle_is_refused_before_it_is_queued(
    name: str, canary: Canary, tmp_path: Path
) -> None:
    model = pickled(tmp_path / "model", canary, name)
    words = ("submit", ROOT / "recipes" / "tiny" / "sft.yaml", "--cluster", "local", "--yes")
    refused = launcher(*words, f"stages.sft.model={model}", folder=tmp_path, code=2)
    assert "has its weights in a pickle" in refused.err and "save_pretrained" in refused.err
    assert not (tmp_path / "runs").exists() and not canary.sang


def made_run(tmp_path: Path, model: str) -> tuple[RunPaths, object]:
    first = ON_THIS_MACHINE.stages[0]
    plan = replace(
        ON_THIS_MACHINE,
        stages=(replace(first, stage=replace(first.stage, models={"model": model})),),
    )
    run, _ = folder.create(tmp_path / "runs", plan, {"name": "chain"}, new=False)
    return run, plan


def test_a_model_that_became_a_pickle_while_the_job_waited_is_refused_on_the_node(
    canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy(tmp_path / "model")
    run, plan = made_run(tmp_path, str(model))
    monkeypatch.setenv("RANK", "0")
    assert trust.refusal(run, plan, "sft") is None  # type: ignore[arg-type]
    shutil.rmtree(model)
    pickled(model, canary)
    found = trust.refusal(run, plan, "sft")  # type: ignore[arg-type]
    assert found is not None and "stages.sft.model" in found[1] and found[0] == "user"
    assert not canary.sang


def test_a_pickle_among_what_a_stage_left_is_refused_by_the_next(
    canary: Canary, tmp_path: Path
) -> None:
    run, _ = folder.create(tmp_path / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    stage = run.stage("sft")
    files.private_folder(stage.root)
    pickled(stage.model, canary)
    found = trust.refusal(run, ON_THIS_MACHINE, "rm")
    assert found is not None and "weights in a pickle" in found[1]
    assert complete.read(stage) is None and not canary.sang


def test_the_records_of_a_run_are_never_unpickled(canary: Canary, tmp_path: Path) -> None:
    run, _ = folder.create(tmp_path / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    stage = run.stage("sft")
    for path in (stage.progress, stage.inputs, stage.attempts / "1.json", run.journal / "9.json"):
        files.private_folder(path.parent)
        path.write_bytes(canary.pickle)
    for verb in ("status", "resume"):
        done = subprocess.run(
            [Path(sys.executable).parent / "launcher", verb, "--runs", tmp_path / "runs"],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode != 0
    assert not canary.sang
