"""Stages that are programs: what they are given, and what their page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.recipe.load import load_recipe
from launcher.recipe.problems import RecipeErrors
from launcher.recipe.types import Command, Recipe, Resources, Stage
from launcher.worker import figures, program
from tests.unit.planning import LAPTOP, MIXED, chain, plan, plan_one

PAGE = Path(__file__).resolve().parents[2] / "docs" / "programs.md"


def with_program(gives: str | None = None, **pins: int) -> Recipe:
    """A chain with a program behind its first stage."""
    given = chain("Qwen/Qwen2.5-7B")
    first = given.stages[0].name
    program = Stage(
        name="harness",
        method="command",
        models={},
        command=Command(("run", "{it}"), {"it": f"stage:{first}"}, gives=gives),  # type: ignore[arg-type]
        resources=Resources(**pins),  # type: ignore[arg-type]
        needs=(first,),
    )
    return replace(given, stages=(given.stages[0], program, *given.stages[1:]))


def test_a_program_gets_one_gpu_of_the_cheapest_partition_and_its_time_limit() -> None:
    found = plan(with_program()).stage("harness").allocation
    prices = [MIXED.gpus[g.gpu].price for p in MIXED.partitions for g in p.groups if g.gpu]
    assert found.processes == 1 and found.gpu is not None
    assert MIXED.gpus[found.gpu].price == min(prices)
    assert found.time_minutes == (MIXED.partition(found.partition).max_time_minutes or 24 * 60)


def test_a_program_gets_what_it_pins() -> None:
    found = plan(with_program(gpus=2, time_minutes=30)).stage("harness").allocation
    assert (found.processes, found.time_minutes) == (2, 30)
    assert 0 < found.signal_lead_s < 30 * 60


def test_more_than_any_partition_gives_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"stages\.harness\.resources"):
        plan(with_program(host_memory_gib=10**6))


def test_without_gpus_a_program_is_one_process() -> None:
    alone = Stage(name="harness", method="command", models={}, command=Command(("run",)))
    found = plan_one(alone, LAPTOP).allocation
    assert (found.processes, found.gpu) == (1, None)


def test_a_plan_with_a_program_reads_back_as_it_was() -> None:
    made = plan(with_program())
    assert plan_from_json(plan_to_json(made)) == made


def test_what_a_program_gives_has_the_size_of_its_first_input() -> None:
    given = with_program("policy")
    last = replace(
        given.stages[0], name="more", models={"model": "stage:harness"}, needs=("harness",)
    )
    made = plan(replace(given, stages=(*given.stages, last)))
    assert made.stage("more").estimate == made.stage(given.stages[0].name).estimate


def test_the_recipes_of_its_page_load(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```yaml\n(launcher: .*?)```", text, re.DOTALL):
        (tmp_path / "r.yaml").write_text(block)
        loaded = load_recipe(str(tmp_path / "r.yaml"))
        assert any(stage.command or stage.gate for stage in loaded.stages)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ('["echo", "{stf}"]', "{stf} is no input"),
        ('["echo", "{model}"]', "{model} is no input"),
        ('["echo", "{"]', "write {{ and }} for braces"),
        ("[]", "list the program"),
    ],
)
def test_words_that_stand_for_nothing_are_refused(tmp_path: Path, words: str, says: str) -> None:
    text = f"""
launcher: 1
name: wrong
stages:
  sft: {{method: sft, use: a/b}}
  x: {{method: command, command: {words}, inputs: {{sft: stage:sft}}}}
"""
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeErrors) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert says in str(caught.value)


GSM8K = {
    "name": "gsm8k",
    "alias": "gsm8k",
    "sample_len": 1319,
    "exact_match,strict-match": 0.52,
    "exact_match_stderr,strict-match": 0.0137,
    "exact_match,flexible-extract": 0.61,
    "exact_match_stderr,flexible-extract": 0.0134,
}
ARC = {
    "name": "arc_easy",
    "alias": "arc_easy",
    "acc,none": 0.65,
    "acc_stderr,none": "N/A",
    "acc_norm,none": 0.59,
}


def lm_eval(out: Path, time: str, results: object, model: str = "__runs__a__model") -> Path:
    """A file as lm-eval leaves it."""
    path = out / model / f"results_2026-{time}T10-00-00.123456.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"results": results, "configs": {}, "versions": {"gsm8k": 3.0}, "model_source": "hf"}
    path.write_text(json.dumps(said))
    return path


def test_what_lm_eval_leaves_are_figures_by_task_and_metric(tmp_path: Path) -> None:
    lm_eval(tmp_path, "03-01", {"gsm8k": GSM8K, "arc_easy": ARC})
    assert figures.left_in(tmp_path) == {
        "gsm8k/sample_len": 1319,
        "gsm8k/exact_match,strict-match": 0.52,
        "gsm8k/exact_match_stderr,strict-match": 0.0137,
        "gsm8k/exact_match,flexible-extract": 0.61,
        "gsm8k/exact_match_stderr,flexible-extract": 0.0134,
        "arc_easy/acc": 0.65,
        "arc_easy/acc_norm": 0.59,
    }


def test_a_program_s_own_figures_go_before_those_of_lm_eval(tmp_path: Path) -> None:
    lm_eval(tmp_path, "03-01", {"gsm8k": GSM8K})
    (tmp_path / "metrics.json").write_text('{"score": 1, "name": "a", "good": true}')
    assert figures.left_in(tmp_path) == {"score": 1}


def test_the_newest_of_lm_eval_s_files_tells(tmp_path: Path) -> None:
    lm_eval(tmp_path, "03-02", {"arc_easy": {"acc,none": 0.7}})
    lm_eval(tmp_path, "03-01", {"arc_easy": {"acc,none": 0.6}, "piqa": {"acc,none": 0.5}})
    assert figures.left_in(tmp_path) == {"arc_easy/acc": 0.7, "piqa/acc": 0.5}


def test_what_lm_eval_says_of_two_models_is_no_figure_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm_eval(tmp_path, "03-01", {"arc_easy": {"acc,none": 0.6}, "piqa": {"acc,none": 0.5}})
    lm_eval(tmp_path, "03-02", {"arc_easy": {"acc,none": 0.7}}, model="base")
    assert figures.left_in(tmp_path) == {"piqa/acc": 0.5}
    assert "of more than one model, and so no figure: arc_easy/acc" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}', '{"results": {"a": 3}}'])
def test_files_of_other_programs_that_are_named_alike_are_no_figures(
    tmp_path: Path, text: str
) -> None:
    lm_eval(tmp_path, "03-01", {}).write_text(text)
    assert figures.left_in(tmp_path) == {}


BAR = r"""
import sys, time
print("begins")
for n in range(1, 4):
    print(f"\r{n}/3 ä", end="", flush=True)
    time.sleep(0.3)
print()
print("no such task", end="")
"""


def test_a_bar_is_passed_on_and_a_sign_of_life_while_it_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []
    monkeypatch.setattr(program, "beat", lambda phase: beats.append(time.monotonic()))
    said = program.Said()
    with subprocess.Popen([sys.executable, "-c", BAR], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        program._pass_on(started.stdout, said)
    assert len(beats) >= 3 and beats[-1] - beats[0] > 0.5
    assert capsys.readouterr().out.startswith("begins\n\r1/3 ä\r2/3 ä\r3/3 ä")
    assert said.last_lines() == "begins\n3/3 ä\nno such task"
