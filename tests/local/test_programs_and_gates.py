"""A user's program in a chain, and results that do not do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.machine import RECIPES, LocalShell

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, shutil, sys
source, out, model = sys.argv[1:4]
print("copying", os.path.basename(source))
shutil.copytree(source, model, dirs_exist_ok=True)
with open(os.path.join(out, "metrics.json"), "w") as file:
    json.dump({"files": len(os.listdir(model)), "joined": int("RANK" in os.environ),
               "path": int("PYTHONPATH" in os.environ)}, file)
if os.path.exists(os.path.join(sys.argv[4], "fail")):
    print("the disk is $full")
    sys.exit(7)
"""


def recipe(shell: LocalShell) -> str:
    program = shell.home / "copy it.py"
    program.write_text(PROGRAM)
    path = shell.home / "own.yaml"
    path.write_text(
        f"""
launcher: 1
name: programs
stages:
  sft: {{method: sft, use: {RECIPES / "tiny" / "model"}}}
  copy:
    method: command
    command: [python, {json.dumps(str(program))}, "{{sft}}", "{{out}}", "{{model}}",
              {json.dumps(str(shell.home))}]
    inputs: {{sft: stage:sft}}
    gives: policy
    gate: {{files: {{min: 3}}, joined: {{max: 0}}}}
  after:
    method: command
    command: [test, -f, "{{copy}}/config.json"]
    inputs: {{copy: stage:copy}}
"""
    )
    return str(path)


def test_a_program_hands_a_model_on_and_its_figures_are_held_to_the_gate(
    shell: LocalShell,
) -> None:
    run = shell.data("submit", recipe(shell))["run"]
    shell.wait_for_state(run, "complete")
    complete = json.loads((shell.runs / run / "stages" / "copy" / "COMPLETE.json").read_text())
    assert complete["metrics"]["joined"] == complete["metrics"]["path"] == 0
    assert {"out/metrics.json", "model/config.json"} <= {a["path"] for a in complete["artifacts"]}


def test_a_program_that_fails_is_the_reason_with_its_last_words(shell: LocalShell) -> None:
    (shell.home / "fail").touch()
    run = shell.data("submit", recipe(shell))["run"]
    shell.wait_for_state(run, "failed")
    (attempt,) = shell.attempts(run, "copy")
    assert "ended with exit code 7" in attempt["failure"]["message"]
    assert "the disk is $full" in attempt["failure"]["message"]
    assert not (shell.runs / run / "stages" / "copy" / "COMPLETE.json").exists()


def test_a_result_that_misses_its_gate_stops_the_chain_with_figure_bound_and_model(
    shell: LocalShell,
) -> None:
    run = shell.data("submit", recipe(shell), "stages.copy.gate.files.min=1000")["run"]
    shell.wait_for_state(run, "failed")
    (attempt,) = shell.attempts(run, "copy")
    message = attempt["failure"]["message"]
    assert "stages.copy.gate: files is" in message and "1000" in message
    assert "stages.copy.use=" in message
    assert not (shell.runs / run / "stages" / "copy" / "COMPLETE.json").exists()
    assert not (shell.runs / run / "stages" / "after" / "attempts").exists()


def test_a_gate_on_a_figure_that_is_not_there_names_those_that_are(shell: LocalShell) -> None:
    run = shell.data("submit", recipe(shell), "stages.copy.gate.fiels.min=1")["run"]
    shell.wait_for_state(run, "failed")
    (attempt,) = shell.attempts(run, "copy")
    assert "no figure fiels" in attempt["failure"]["message"]
    assert "files, joined" in attempt["failure"]["message"]


HARNESS = """
import json, os, sys
folder = os.path.join(sys.argv[1], "__a__model")
os.makedirs(folder)
results = {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.52}}
with open(os.path.join(folder, "results_2026-03-01T10-00-00.123456.json"), "w") as file:
    json.dump({"results": results}, file)
"""


def test_a_gate_holds_what_lm_eval_leaves(shell: LocalShell) -> None:
    program, path = shell.home / "harness.py", shell.home / "harness.yaml"
    program.write_text(HARNESS)
    path.write_text(
        f"""
launcher: 1
name: harness
stages:
  harness:
    method: command
    command: [python, {json.dumps(str(program))}, "{{out}}"]
    gate: {{"gsm8k/exact_match,strict-match": {{min: 0.6}}}}
"""
    )
    run = shell.data("submit", str(path))["run"]
    shell.wait_for_state(run, "failed")
    (attempt,) = shell.attempts(run, "harness")
    said = "stages.harness.gate: gsm8k/exact_match,strict-match is 0.52, at least 0.6 asked"
    assert said in attempt["failure"]["message"]


COLOURS = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: /shared/tasks/colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    """An environment with the real lm-eval."""
    folder = tmp_path / "harness"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--constraint", str(ROOT / "constraints.txt")]
    # First, and by its exact version: asked for by a range, pip would take a CUDA build.
    subprocess.run([*install, "torch==2.13.0"], check=True)
    subprocess.run([*install, "lm-eval[hf]==0.4.13"], check=True)
    return folder


@pytest.mark.long
@pytest.mark.timeout(3600)  # most of it goes into the environment
def test_lm_eval_measures_a_trained_model_on_tasks_of_one_s_own_as_the_page_says(
    shell: LocalShell, tmp_path: Path, harness: Path
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()

    def placed(text: str) -> str:
        return text.replace("/shared/harness", str(harness)).replace("/shared/tasks", str(tasks))

    page = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    _, sums, recipe, *_ = map(placed, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    (tasks / "sums.yaml").write_text(sums)
    (tasks / "sums.jsonl").write_text('{"question": "2 + 3 =", "answer": "5"}\n' * 3)
    (tasks / "colours.yaml").write_text(placed(COLOURS))
    row = {"question": "What colour is grass?", "choices": ["green", "blue"], "answer": 0}
    (tasks / "colours.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    path = shell.home / "sums.yaml"

    path.write_text(recipe.replace("--tasks, sums", '--tasks, "sums,colours"').replace("0.5", "0"))
    run = shell.data("submit", str(path))["run"]
    shell.wait_for_state(run, "complete", timeout=900)
    stages = shell.runs / run / "stages"
    complete = json.loads((stages / "harness" / "COMPLETE.json").read_text())
    assert set(complete["metrics"]) == {
        "sums/exact_match,number", "sums/exact_match_stderr,number", "sums/sample_len",
        "colours/acc", "colours/acc_stderr", "colours/acc_norm", "colours/acc_norm_stderr",
        "colours/sample_len",
    }  # fmt: skip
    assert complete["metrics"]["sums/sample_len"] == 3

    path.write_text(recipe)
    trained = f"stages.sft.use={stages / 'sft' / 'model'}"
    run = shell.data("submit", str(path), "name=again", trained)["run"]
    shell.wait_for_state(run, "failed", timeout=900)
    (attempt,) = shell.attempts(run, "harness")
    said = "stages.harness.gate: sums/exact_match,number is 0, at least 0.5 asked"
    assert said in attempt["failure"]["message"]
