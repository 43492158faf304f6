"""A recipe file, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.recipe.document import dump
from launcher.recipe.load import load_recipe
from launcher.recipe.problems import RecipeErrors
from launcher.recipe.types import Data, Peft

REPOSITORY = Path(__file__).resolve().parents[2]

SFT = """\
launcher: 1
name: mine
model: owner/model
stages:
  sft:
    method: sft
    data: {path: owner/rows}
    global_batch: 8
"""


def written(folder: Path, text: str, name: str = "r.yaml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(source: str, *overrides: str) -> str:
    with pytest.raises(RecipeErrors) as errors:
        load_recipe(source, overrides)
    return str(errors.value)


def test_relative_paths_are_those_of_the_file_that_states_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '{"text": "hi"}\n', "lib/rows.jsonl")
    written(tmp_path, "def score(): ...\n", "lib/rule.py")
    written(tmp_path, "{}", "lib/model/config.json")
    written(
        tmp_path,
        SFT.replace("owner/rows", "rows.jsonl").replace("owner/model", "./model"),
        "lib/base.yaml",
    )
    child = written(tmp_path, "extends: [../lib/base]\nname: child\n", "mine/child.yaml")
    monkeypatch.chdir("/")
    stage = load_recipe(child).stage("sft")
    assert stage.data is not None
    assert stage.data.path == str(tmp_path / "lib" / "rows.jsonl")
    assert stage.models == {"model": str(tmp_path / "lib" / "model")}


def test_a_relative_path_in_an_override_is_the_current_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path, SFT, "far/r.yaml")
    written(tmp_path, "{}", "here/model/config.json")
    monkeypatch.chdir(tmp_path / "here")
    stage = load_recipe(source, ["stages.sft.use=./model"]).stage("sft")
    assert stage.use == str(tmp_path / "here" / "model")


def test_parents_apply_left_to_right_and_the_file_itself_last(tmp_path: Path) -> None:
    written(tmp_path, "seed: 1\ndtype: float16\nenv: {A: one, B: one}\n", "a.yaml")
    written(tmp_path, "seed: 2\nenv: {B: two, C: two}\n", "b.yaml")
    source = written(tmp_path, "extends: [a, ./b.yaml]\nenv: {C: null}\n" + SFT)
    stage = load_recipe(source).stage("sft")
    assert (stage.seed, stage.dtype) == (2, "float16")
    assert stage.env == {"A": "one", "B": "two"}


def test_a_built_in_part_can_be_extended_from_anywhere(tmp_path: Path) -> None:
    source = written(tmp_path, "name: mine\nextends: [method/sft, size/0.5b, peft/lora]\n")
    stage = load_recipe(source).stage("sft")
    assert stage.peft == Peft(r=16, alpha=32, targets="all-linear")
    assert stage.train["learning_rate"] == 2e-4


def test_one_name_of_a_module_is_a_list_of_it_and_a_pattern_is_none(tmp_path: Path) -> None:
    for targets, meant in (("q_proj", ("q_proj",)), (r".*\.q_proj", r".*\.q_proj")):
        source = written(tmp_path, SFT + f"    peft: {{targets: '{targets}'}}\n")
        assert load_recipe(source).stages[0].peft == Peft(targets=meant)


def test_null_takes_back_what_a_parent_said(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        "name: mine\nextends: [method/ppo, size/0.5b]\nstages:\n  eval: null\n"
        "  ppo: {train: {missing_eos_penalty: null, save_steps: null}}\n",
    )
    recipe = load_recipe(source)
    assert [stage.name for stage in recipe.stages] == ["sft", "rm", "ppo"]
    train = recipe.stage("ppo").train
    assert train["missing_eos_penalty"] is None, "a null that the config takes is its value"
    assert "save_steps" not in train, "one that it does not take leaves the default"


def test_a_stage_may_do_without_what_the_recipe_says_of_all(tmp_path: Path) -> None:
    text = SFT + "    peft: null\n    resources: {gpus: auto}\n    tokenizer: null\n"
    source = written(
        tmp_path, text + "peft: {r: 4}\nresources: {gpus: 2, time: 12h}\ntokenizer: owner/other\n"
    )
    stage = load_recipe(source).stage("sft")
    assert stage.peft is None
    assert stage.tokenizer is None
    assert (stage.resources.gpus, stage.resources.time_minutes) == (None, 720)


def test_what_is_said_of_a_method_holds_for_its_stages_unless_they_say_otherwise(
    tmp_path: Path,
) -> None:
    more = "methods: {sft: {dtype: float32, train: {max_length: 64, packing: true}}}\n"
    source = written(tmp_path, SFT + "    train: {max_length: 128}\n" + more)
    stage = load_recipe(source).stage("sft")
    assert stage.dtype == "float32"
    assert stage.train == {"max_length": 128, "packing": True}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("12:00:00", 720),
        ("24:00:00", 1440),
        ("1-00:00:00", 1440),
        ("90m", 90),
        ("12h", 720),
        ("1d12h", 2160),
        ("00:00:30", 1),
    ],
)
def test_a_time_limit_is_read_in_every_clear_form(tmp_path: Path, text: str, minutes: int) -> None:
    source = written(tmp_path, SFT + f"resources: {{time: {text}}}\n")
    assert load_recipe(source).stage("sft").resources.time_minutes == minutes


@pytest.mark.parametrize(
    ("text", "gib"), [("64GiB", 64.0), ("64GB", 64e9 / 2**30), ("1 TiB", 1024)]
)
def test_memory_is_read_with_its_unit(tmp_path: Path, text: str, gib: float) -> None:
    source = written(tmp_path, SFT + f"resources: {{host_memory: {text}}}\n")
    assert load_recipe(source).stage("sft").resources.host_memory_gib == gib


def test_overrides_are_read_by_the_rules_of_the_file(tmp_path: Path) -> None:
    source = written(tmp_path, SFT)
    recipe = load_recipe(
        source,
        [
            "stages.sft.train.learning_rate=1e-6",
            "stages.sft.train.optim_target_modules=[a, b]",
            "stages.sft.train.run_name=on",
            "seed=7",
            "stages.more={method: sft, data: {path: owner/rows}, global_batch: 4}",
        ],
    )
    train = recipe.stage("sft").train
    assert train == {"learning_rate": 1e-6, "optim_target_modules": ["a", "b"], "run_name": "on"}
    assert recipe.stage("more").seed == 7


def test_a_wrong_override_is_named_as_it_was_typed(tmp_path: Path) -> None:
    source = written(tmp_path, SFT)
    said = refusal(source, "stages.sft.train.learning_rte=1")
    assert said == (
        "argument 'stages.sft.train.learning_rte=1' stages.sft.train.learning_rte: "
        "no key of SFTConfig (TRL 1.16.0); did you mean 'learning_rate'?"
    )
    assert "did you mean 'sft'?" in refusal(source, "stages.stf.train.learning_rate=1")
    assert "KEY.KEY=VALUE" in refusal(source, "learning_rate")
    assert "not YAML" in refusal(source, "seed=[1")
    assert "cannot be overridden" in refusal(source, "extends=[a]")
    assert refusal(source, "=1", "a..b=1").count("KEY.KEY=VALUE") == 2


def test_the_resolved_document_loads_as_the_same_recipe(tmp_path: Path) -> None:
    for name in ("tiny/ppo", "ppo_7b"):
        recipe = load_recipe(name, ["stages.sft.seed=3"])
        again = load_recipe(written(tmp_path, dump(recipe.resolved)))
        assert again == recipe
        assert again.identity == recipe.identity


def test_an_override_or_another_name_gives_another_identity() -> None:
    identities = {
        load_recipe("tiny/sft").identity,
        load_recipe("tiny/sft", ["name=other"]).identity,
        load_recipe("tiny/sft", ["seed=1"]).identity,
    }
    assert len(identities) == 3
    assert load_recipe("tiny/sft").identity in identities


def test_a_repository_path_and_a_built_in_name_are_the_same_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert load_recipe("recipes/ppo_7b.yaml") == load_recipe("ppo_7b")


def test_a_recipe_loads_in_a_quarter_second_of_processor_time_without_the_training_stack() -> None:
    script = (
        "import sys, time\n"
        "from launcher.recipe.load import load_recipe\n"
        "load_recipe('ppo_7b')\n"
        "spent = time.process_time()\n"
        "heavy = {'torch', 'trl', 'transformers', 'pydantic', 'submitit'} & set(sys.modules)\n"
        "print(spent, *heavy)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"]},
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(len(run) == 1 for run in runs), f"heavy modules are loaded: {runs}"
    assert min(float(run[0]) for run in runs) < 0.25


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", '[\n  {"text": "a"}\n]'),
        ("one.json", '{\n  "text": "a"\n}'),
        ("after.jsonl", '\ufeff\n{"text": "a"}\n'),
        ("long.jsonl", '{"text": "' + "a" * 2**21 + '"}'),
        ("rows.csv", "text\na\n"),
    ],
)
def test_data_is_taken_in_every_form_that_it_has_rows_in(
    tmp_path: Path, name: str, text: str
) -> None:
    written(tmp_path, text, name)
    source = written(tmp_path, SFT.replace("owner/rows", name))
    assert load_recipe(source).stage("sft").data == Data(str(tmp_path / name))


def test_jinja_is_read_for_a_template_alone(tmp_path: Path) -> None:
    check = (
        "import sys; from launcher.recipe.load import load_recipe;"
        " load_recipe(sys.argv[1]); sys.exit('jinja2' in sys.modules)"
    )
    plain = written(tmp_path, SFT)
    given = written(tmp_path, SFT + "    chat_template: '{{ messages }}'\n", "given.yaml")
    for source, loaded in ((plain, 0), (given, 1)):
        assert subprocess.run([sys.executable, "-c", check, source]).returncode == loaded
