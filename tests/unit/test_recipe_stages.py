"""Stages: what they refer to, their order, and their `train` block."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launcher.errors import LauncherError
from launcher.recipe.graph import in_order
from launcher.recipe.load import load_recipe
from launcher.recipe.types import Recipe, Score

DATA = "data: {path: owner/rows}, global_batch: 8"


def recipe_of(folder: Path, stages: str, top: str = "") -> Recipe:
    path = folder / "r.yaml"
    path.write_text(f"launcher: 1\nname: mine\nmodel: owner/model\n{top}stages:\n{stages}")
    return load_recipe(str(path))


def test_the_order_follows_references_and_else_the_file(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path,
        f"  ppo: {{method: ppo, policy: stage:sft, reward_model: stage:rm, {DATA}}}\n"
        f"  other: {{method: sft, {DATA}}}\n"
        f"  rm: {{method: reward, model: stage:sft, {DATA}}}\n"
        f"  sft: {{method: sft, {DATA}}}\n"
        f"  last: {{method: sft, needs: [ppo, other], {DATA}}}\n",
    )
    assert [stage.name for stage in recipe.stages] == ["other", "sft", "rm", "ppo", "last"]
    assert recipe.stage("ppo").needs == ("sft", "rm")
    assert recipe.stage("last").needs == ("ppo", "other")


def test_a_diamond_is_ordered_and_a_cycle_is_named() -> None:
    diamond = {"d": ("b", "c"), "c": ("a",), "b": ("a",), "a": ()}
    assert in_order(diamond) == (["a", "c", "b", "d"], [])
    order, cycle = in_order({"free": (), "x": ("y",), "y": ("z",), "z": ("x",)})
    assert order == ["free"]
    assert cycle == ["x", "y", "z", "x"]


def test_the_recipes_model_fills_the_main_role_only(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, f"  ppo: {{method: ppo, reward_model: owner/judge, {DATA}}}\n")
    assert recipe.stage("ppo").models == {"policy": "owner/model", "reward_model": "owner/judge"}


def test_a_finished_model_stands_in_for_a_stage_that_then_waits_for_nothing(
    tmp_path: Path,
) -> None:
    recipe = recipe_of(
        tmp_path,
        f"  sft: {{method: sft, {DATA}}}\n"
        "  rm: {method: reward, model: stage:sft, use: owner/judge}\n"
        f"  ppo: {{method: ppo, policy: stage:sft, reward_model: stage:rm, {DATA}}}\n",
    )
    assert recipe.stage("rm").use == "owner/judge"
    assert recipe.stage("rm").needs == ()
    assert recipe.stage("ppo").needs == ("sft", "rm")


def test_a_model_may_be_named_at_a_revision_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        """
launcher: 1
name: revised
model: owner/base@v1.0
tokenizer: owner/base@refs/pr/1
stages:
  rm: {method: reward, use: owner/judge@0123abc}
  dpo:
    method: dpo
    reference: owner/base@main
    data: {path: owner/pairs}
    global_batch: 8
  eval:
    method: evaluate
    candidates: {base: model, other: owner/other@step-1000}
    reward_model: stage:rm
    data: {path: owner/prompts}
"""
    )
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe.stage("rm").use == "owner/judge@0123abc"
    # `main` is what a name alone means.
    assert recipe.stage("dpo").models == {"policy": "owner/base@v1.0", "reference": "owner/base"}
    assert recipe.stage("dpo").tokenizer == "owner/base@refs/pr/1"
    candidates = {"base": "owner/base@v1.0", "other": "owner/other@step-1000"}
    assert recipe.stage("eval").candidates == candidates


def test_an_evaluation_waits_for_its_candidates_and_knows_the_recipes_own_model(
    tmp_path: Path,
) -> None:
    recipe = recipe_of(
        tmp_path,
        f"  sft: {{method: sft, {DATA}}}\n"
        "  eval: {method: evaluate, candidates: {base: model, sft: stage:sft}, baseline: base,\n"
        "    reward_model: owner/judge, data: {path: owner/rows}}\n",
    )
    stage = recipe.stage("eval")
    assert stage.candidates == {"base": "owner/model", "sft": "stage:sft"}
    assert stage.needs == ("sft",)
    assert stage.models["reference"] == "owner/model"


def test_a_pasted_batch_becomes_the_global_batch_with_a_note(tmp_path: Path) -> None:
    stage = (
        "  sft:\n    method: sft\n    data: {path: owner/rows}\n    resources: {gpus: 2}\n"
        "    train: {per_device_train_batch_size: 4, gradient_accumulation_steps: 8}\n"
    )
    recipe = recipe_of(tmp_path, stage)
    assert recipe.stage("sft").global_batch == 64
    assert recipe.stage("sft").train == {}
    assert "taken as `global_batch: 64`" in recipe.warnings[0]


def test_an_old_name_is_taken_as_the_new_one_with_a_note(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path,
        f"  sft: {{method: sft, {DATA}, train: {{max_seq_length: 64, warmup_ratio: 0.1}}}}\n",
    )
    assert recipe.stage("sft").train == {"max_length": 64, "warmup_steps": 0.1}
    assert len(recipe.warnings) == 2
    assert "r.yaml:5:73 stages.sft.train.max_seq_length: now called max_" in recipe.warnings[0]


def test_keys_of_vllm_that_do_nothing_are_told(tmp_path: Path) -> None:
    stage = f"  a: {{method: grpo, {DATA}, reward_model: owner/judge, train: {{%s}}}}\n"
    idle = "vllm_mode: server, vllm_gpu_memory_utilization: 0.5, vllm_server_host: null"
    (warning,) = recipe_of(tmp_path, stage % idle).warnings
    assert "r.yaml:5:99 stages.a.train.vllm_mode, vllm_gpu_memory_utilization: with" in warning
    assert recipe_of(tmp_path, stage % f"use_vllm: true, {idle}").warnings == ()
    assert recipe_of(tmp_path, stage % f"use_vllm: false, {idle}").warnings == ()


def test_a_whole_number_will_do_for_a_number(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, f"  sft: {{method: sft, {DATA}, train: {{num_train_epochs: 2}}}}\n"
    )
    assert recipe.stage("sft").train == {"num_train_epochs": 2}


def test_columns_are_mapped_and_found_in_csv_and_json(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\na,b\n")
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": []}, {"messages": []}]))
    recipe = recipe_of(
        tmp_path,
        "  a:\n    method: sft\n    global_batch: 8\n"
        "    data: {path: rows.csv, columns: {prompt: question, completion: answer}}\n"
        "  b: {method: sft, global_batch: 8, data: {path: rows.json}}\n",
    )
    data = recipe.stage("a").data
    assert data is not None
    assert data.columns == {"prompt": "question", "completion": "answer"}


def test_scores_are_functions_of_a_file_or_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text("def score(completions):\n    return []\n")
    text = (
        "  eval: {method: evaluate, candidates: {base: model}, data: {path: owner/rows}, scores: {"
    )
    recipe = recipe_of(
        tmp_path,
        text + "rule: ./rule.py:score, right: exact_match,"
        " number: {function: numeric_answer, options: {after: '####'}}}}\n",
    )
    assert recipe.stage("eval").scores == {
        "rule": Score(f"{tmp_path}/rule.py:score"),
        "right": Score("exact_match"),
        "number": Score("numeric_answer", {"after": "####"}),
    }
    with pytest.raises(LauncherError) as refused:
        recipe_of(
            tmp_path,
            text + "a: numeric_answr, b: {function: length},"
            " c: {function: ./rule.py:score, options: {x: 1}}}}\n",
        )
    said = str(refused.value)
    assert "did you mean" in said and "length needs the option" in said
    assert "only functions of the library take options" in said


SOURCE = """
import math, os.path as place
from json import loads as of_json
if math.pi > 3:
    try:
        def in_try(completions): ...
    except ImportError:
        async def in_except(completions): ...
else:
    in_else = lambda completions: []
first, (second, *rest) = [min, [max]]
with open(os.devnull) as opened:
    made: object = min
class Called: ...
def outer():
    global declared
    def inner(): ...
    local = 1
"""


def function_of(folder: Path, source: str, name: str) -> str:
    """What is said of the function `name` of a file as a reward and as a score; empty: nothing."""
    (folder / "rewards.py").write_text(source)
    told = []
    for stage in (
        f"  a: {{method: grpo, {DATA}, rewards: {{it: './rewards.py:{name}'}}}}\n",
        "  a: {method: evaluate, candidates: {base: model}, data: {path: owner/rows},\n"
        f"    scores: {{it: './rewards.py:{name}'}}}}\n",
    ):
        try:
            recipe_of(folder, stage)
            told.append("")
        except LauncherError as refused:
            told.append(str(refused).partition("it: ")[2])
    assert told[0] == told[1]
    return told[0]


@pytest.mark.parametrize(
    "name",
    [
        *("math", "place", "of_json", "in_try", "in_except", "in_else", "first", "second", "rest"),
        *("opened", "made", "Called", "outer", "declared"),
    ],
)
def test_a_function_may_be_bound_in_any_way_at_the_top_of_its_file(
    tmp_path: Path, name: str
) -> None:
    assert function_of(tmp_path, SOURCE, name) == ""


@pytest.mark.parametrize("name", ["inner", "local", "os", "json", "loads"])
def test_a_function_that_its_file_does_not_bind_is_refused(tmp_path: Path, name: str) -> None:
    assert f"rewards.py defines no {name}" in function_of(tmp_path, SOURCE, name)


@pytest.mark.parametrize(
    "source",
    [
        "from mine import *\n",
        "globals()['right'] = min\n",
        "def __getattr__(name):\n    return min\n",
        "exec('right = min')\n",
    ],
)
def test_a_file_whose_names_no_text_shows_may_have_any(tmp_path: Path, source: str) -> None:
    assert function_of(tmp_path, source, "right") == ""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def right(completions)\n    return []\n", ":1 is no Python: "),
        ("x = 1\nreturn x\n", ":2 is no Python: 'return' outside function"),
        ("def right(a, a):\n    return []\n", ":1 is no Python: duplicate argument"),
    ],
)
def test_a_file_of_functions_that_is_no_python_is_refused_with_its_line(
    tmp_path: Path, source: str, line: str
) -> None:
    assert f"{tmp_path}/rewards.py{line}" in function_of(tmp_path, source, "right")


def test_a_file_of_functions_is_read_and_never_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef right(completions):\n    return '\\d'\n"
    assert function_of(tmp_path, source, "right") == ""
    assert not (tmp_path / "ran").exists()
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_an_adapter_alone_is_told_with_its_base_and_the_way_to_merge_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    with pytest.raises(LauncherError) as caught:
        recipe_of(tmp_path, f"  dpo: {{method: dpo, policy: {tmp_path}, {DATA}}}\n")
    said = caught.value.message
    assert "holds an adapter of 'owner/base', and no whole model; name the folder that" in said
    assert said.endswith(f'.save_pretrained(to)" {tmp_path} owner/base ./merged')


def test_the_adapter_that_a_stage_left_is_told_with_the_model_beside_it(tmp_path: Path) -> None:
    for folder, file in (("adapter", "adapter_config.json"), ("model", "config.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}")
    said = f"name {tmp_path}/model, where its stage left the two merged"
    with pytest.raises(LauncherError, match=re.escape(said)):
        recipe_of(tmp_path, f"  dpo: {{method: dpo, policy: {tmp_path}/adapter, {DATA}}}\n")


def test_a_hub_name_that_looks_like_a_path_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, current = tmp_path / "recipes", tmp_path / "work"
    for folder in (beside / "models" / "mine", current / "data" / "rows_one"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(current)

    def said(model: str, path: str) -> tuple[str, ...]:
        data = f"data: {{path: {path}}}, global_batch: 8"
        return recipe_of(beside, f"  a: {{method: sft, model: {model}, {data}}}\n").warnings

    (mine,) = said("models/mine", "owner/rows")
    assert mine.endswith(
        "r.yaml:5:27 stages.a.model: 'models/mine' is taken for a hub name; for what lies here"
        " write ./models/mine"
    )
    (rows,) = said("owner/model", "data/rows_won")
    assert rows.endswith(
        "stages.a.data.path: 'data/rows_won' is taken for a hub name (a path starts with / or ./),"
        f" and {current}/data has no 'rows_won'; did you mean 'rows_one'?"
    )
    (other,) = said("owner/model", "data/nope")
    assert other.endswith(f"and {current}/data has no 'nope'")
    assert said("owner/model", "owner/rows") == said("model", "rows") == ()


def test_a_chat_template_that_trl_reads_is_found_from_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0]['content'] }}")
    stage = f"  a: {{method: sft, train: {{chat_template_path: %s}}, {DATA}}}\n"
    monkeypatch.chdir("/")
    for written in ("own.jinja", "./own.jinja"):
        found = recipe_of(tmp_path, stage % written)
        assert found.stage("a").train["chat_template_path"] == str(tmp_path / "own.jinja")
        assert found.resolved["stages"]["a"]["train"] == found.stage("a").train
    other = recipe_of(tmp_path, stage % "owner/instruct").stage("a")
    assert other.train["chat_template_path"] == "owner/instruct"
    assert recipe_of(tmp_path, stage % "null").stage("a").train == {"chat_template_path": None}
