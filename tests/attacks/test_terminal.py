"""What others wrote steers no terminal and is no markup."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launcher.cli import output, results, state_text
from launcher.records import files
from launcher.report import evaluation
from launcher.report.signs import Sign
from launcher.run import folder
from launcher.run.state import RunState, StageState
from launcher.scheduler import queue
from tests.unit.command import launcher
from tests.unit.running import ON_THIS_MACHINE

ESCAPE = "\x1b]0;owned\x07\x1b[31m\x9b2J\rred\u202e"


def steers(text: str) -> bool:
    return any(character in text for character in "\x1b\x07\x9b\r\u202e")


def test_names_and_reasons_in_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    stage = StageState(f"sft{ESCAPE}", "sft", "failed", f"it failed {ESCAPE}", job_id=ESCAPE)
    sign: Any = SimpleNamespace(text=f"odd {ESCAPE}")
    output.text(state_text.render(RunState(f"run{ESCAPE}", (stage,)), {ESCAPE: [cast(Sign, sign)]}))
    said = capsys.readouterr().out
    assert "it failed" in said and "odd" in said and not steers(said)


def test_what_the_queue_says(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"7|PENDING|Why_{ESCAPE}|N/A|n{ESCAPE}|(null)|launcher:a:b:c\n".replace("\r", "")
    (job,) = queue.parse_squeue(line).values()
    stage = StageState("sft", "sft", "pending", job.reason, job.job_id)
    output.text(state_text.render(RunState("run", (stage,))))
    assert not steers(capsys.readouterr().out)


def document() -> dict[str, Any]:
    """An evaluation whose prompt, answer and label are an attacker's."""
    bad = f"<script>alert(1)</script><img src=x onerror=alert(2)> | {ESCAPE}"
    interval = {"mean": 1.0, "low": 0.0, "high": 2.0}
    candidate = {
        "label": bad, "model": bad, "measures": {bad: interval}, "against_baseline": {},
        "kl_token": None, "kl_sequence": None, "length": 3.0, "repetition": 0.0, "eos_rate": 1.0,
        "perplexity": None,
    }  # fmt: skip
    answer = {"text": bad, "measures": {bad: 1.0}}
    return {
        "baseline": bad, "reference": None, "reward_model": None, "prompts": 1, "seed": 1,
        "confidence": 0.95, "ngram": 4, "candidates": [candidate],
        "samples": [{"prompt": bad, "answers": {bad: answer}}],
    }  # fmt: skip


def test_markup_in_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    text = evaluation.render_markdown(document())
    assert "<script" not in text and "<img" not in text and "&lt;script&gt;" in text
    assert "\x1b" not in text
    output.text(evaluation.render_text(document()))
    assert not steers(capsys.readouterr().out)


def test_a_report_of_a_run_with_such_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = folder.create(tmp_path / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    paths = run.stage("eval")
    files.private_folder(paths.root)
    files.write_json(paths.evaluation, document())
    output.text(results.render(run, ON_THIS_MACHINE, RunState(ESCAPE, ())))
    assert not steers(capsys.readouterr().out)


def test_a_log(tmp_path: Path) -> None:
    run, _ = folder.create(tmp_path / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    logs = files.private_folder(run.stage("sft").logs)
    (logs / "1_0_log.out").write_text(f"a line\n{ESCAPE}\n")
    shown = launcher("logs", "sft", "--runs", tmp_path / "runs", folder=tmp_path)
    assert "a line" in shown.out and not steers(shown.out)


def test_a_recipe_and_a_file_with_such_a_name(tmp_path: Path) -> None:
    name = f"re{ESCAPE}cipe.yaml".replace("/", "")
    (tmp_path / name).write_text(f"launcher: 1\nname: {os.fsencode('x').decode()}\nstages: {{}}\n")
    for verb in ("validate", "plan", "submit"):
        refused = launcher(verb, name, folder=tmp_path, code=2)
        assert not steers(refused.err + refused.out)
