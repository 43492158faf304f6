"""A config written for TRL's scripts as a stage: what goes first, what is computed and told."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from launcher.cli import installed
from launcher.errors import UsageError
from launcher.plan.packages import needed
from launcher.recipe.document import Node
from launcher.recipe.fields import fields
from launcher.recipe.folder import guess, survey
from launcher.recipe.load import load_recipe, recipe_of
from launcher.recipe.problems import Place, RecipeErrors
from launcher.recipe.renames import REMOVED, RENAMES, RLOO_RENAMES, present
from launcher.recipe.trl_yaml.convert import LEFT_OUT
from launcher.recipe.trl_yaml.keys import TAKEN
from launcher.recipe.types import Peft, Recipe, Reward, Stage
from tests.unit.command import launcher

CONFIGS = Path(__file__).resolve().parent.parent / "trl_configs"
DPO = """\
model_name_or_path: owner/policy
dataset_name: owner/pairs
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
learning_rate: 1e-6
max_seq_length: 512
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my_trl_config.yaml"
    path.write_text(DPO)
    return path


def refusal(source: Path | str, *overrides: str, method: str | None = None) -> str:
    with pytest.raises(RecipeErrors) as errors:
        load_recipe(str(source), overrides, method=method)
    return str(errors.value)


def only(recipe: Recipe) -> Stage:
    (stage,) = recipe.stages
    return stage


def test_a_config_is_a_recipe_of_one_stage_named_as_its_file(config: Path) -> None:
    recipe = load_recipe(str(config), method="dpo")
    assert recipe.name == "my_trl_config"
    assert only(recipe).name == only(recipe).method == "dpo"
    assert only(recipe).models == {"policy": "owner/policy"}


def test_a_config_without_its_method_is_refused_with_the_way_out(config: Path) -> None:
    assert "say its method, as in `--method dpo`" in refusal(config)


def test_the_recipe_s_own_keys_go_before_those_of_the_file(config: Path) -> None:
    recipe = config.with_name("r.yaml")
    recipe.write_text(
        "launcher: 1\nname: mine\nstages:\n  sft: {method: sft, model: owner/base, global_batch: 4,"
        " data: {path: owner/rows}}\n"
        "  dpo:\n    method: dpo\n    policy: stage:sft\n    train_from: my_trl_config.yaml\n"
        "    data: {path: owner/other}\n    global_batch: 64\n"
        "    train: {max_length: 256, beta: 0.5}\n"
    )
    stage = load_recipe(str(recipe)).stage("dpo")
    assert stage.models == {"policy": "stage:sft"}
    assert stage.needs == ("sft",)
    assert stage.data is not None and stage.data.path == "owner/other"
    assert stage.global_batch == 64
    assert stage.train == {"learning_rate": 1e-6, "max_length": 256, "beta": 0.5}


def test_what_the_recipe_says_of_a_method_lies_under_the_file(config: Path) -> None:
    recipe = config.with_name("r.yaml")
    recipe.write_text(
        "launcher: 1\nname: mine\nmethods: {dpo: {train: {learning_rate: 1, beta: 0.3}}}\n"
        "stages: {a: {method: dpo, train_from: my_trl_config.yaml}}\n"
    )
    assert only(load_recipe(str(recipe))).train["learning_rate"] == 1e-6
    assert only(load_recipe(str(recipe))).train["beta"] == 0.3


def test_a_later_config_lies_on_top_and_keys_may_stand_in_the_recipe(config: Path) -> None:
    config.with_name("more.yaml").write_text("beta: 0.2\nlearning_rate: 2e-6\n")
    recipe = config.with_name("r.yaml")
    recipe.write_text(
        "launcher: 1\nname: mine\nstages:\n  dpo:\n    method: dpo\n"
        "    train_from: [my_trl_config.yaml, more.yaml, {beta: 0.4}]\n"
    )
    train = only(load_recipe(str(recipe))).train
    assert (train["beta"], train["learning_rate"]) == (0.4, 2e-6)


def test_an_override_may_be_a_key_of_the_file_of_the_stage_or_of_the_recipe(config: Path) -> None:
    words = (
        "learning_rate=2e-6", "model_name_or_path=owner/another", "train.beta=0.2",
        "stages.dpo.resources.gpus=4", "name=other", "seed=5",
    )  # fmt: skip
    recipe = load_recipe(str(config), words, method="dpo")
    stage = only(recipe)
    assert recipe.name == "other" and stage.seed == 5 and stage.resources.gpus == 4
    assert stage.train["learning_rate"] == 2e-6 and stage.train["beta"] == 0.2
    assert stage.models == {"policy": "owner/another"}
    assert only(load_recipe(str(config), ["model=owner/x"], method="dpo")).models == {
        "policy": "owner/x"
    }


def test_an_override_that_is_no_key_of_anything_is_refused(config: Path) -> None:
    said = refusal(config, "learning_rte=1", method="dpo")
    assert "argument 'learning_rte=1' learning_rte: no key of DPOConfig" in said
    assert "did you mean 'learning_rate'?" in said


@pytest.mark.parametrize(
    ("words", "launch", "batch"),
    [((), None, 8), (("resources.gpus=2",), None, 16), ((), "zero3", 64), ((), "deepspeed", 8),
     (("resources.gpus=2",), "zero3", 64), (("global_batch=5",), "zero3", 5)],
)  # fmt: skip
def test_the_batch_counts_the_processes_that_are_known(
    config: Path, words: tuple[str, ...], launch: str | None, batch: int
) -> None:
    beside = str(CONFIGS / "accelerate" / f"{launch}.yaml") if launch else None
    recipe = load_recipe(str(config), words, method="dpo", accelerate=beside)
    assert only(recipe).global_batch == batch


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        ("zero3", "ZeRO stage 3: left to the plan (`resources.zero_stage: 3`,"
         " `resources.offload: optimizer` would pin it); its 8 processes count for the batch"),
        ("deepspeed", "ZeRO stage 2: left to the plan (`resources.zero_stage: 2` would pin it)"),
        ("fsdp", "FSDP: left to the plan (`resources.zero_stage: 3` would pin it); its 4"),
        ("ddp", "accelerate's multi_gpu: left to the plan; its 2 processes"),
    ],
)  # fmt: skip
def test_an_accelerate_config_is_said_to_be_the_plan_s(
    config: Path, launch: str, said: str
) -> None:
    recipe = config.with_name("r.yaml")
    recipe.write_text(
        "launcher: 1\nname: mine\nstages: {dpo: {method: dpo, train_from: "
        f"[my_trl_config.yaml, {CONFIGS / 'accelerate' / launch}.yaml]}}}}\n"
    )
    loaded = load_recipe(str(recipe))
    assert any(said in warning for warning in loaded.warnings)
    assert only(loaded).resources.zero_stage is None


def test_processes_may_stand_in_the_config_itself(config: Path) -> None:
    config.write_text(DPO + "num_processes: 4\naccelerate_config: zero3\n")
    recipe = load_recipe(str(config), method="dpo")
    assert only(recipe).global_batch == 32
    assert any("accelerate_config, num_processes (line 7): left out" in w for w in recipe.warnings)


def test_an_accelerate_config_alone_trains_nothing(config: Path) -> None:
    said = refusal(CONFIGS / "accelerate" / "zero3.yaml", method="dpo")
    assert "an accelerate config alone says nothing to train" in said


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("r.yaml", "is a recipe; `extends` takes those"),
        ("nowhere.yaml", "nowhere.yaml does not exist"),
        ("[3]", "got 3, expected a file, or keys of a config"),
        ("list.yaml", "a list at the top; a config of TRL is a mapping"),
    ],
)
def test_a_train_from_that_cannot_be_read_is_refused(tmp_path: Path, text: str, way: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"launcher: 1\nname: mine\nstages: {{dpo: {{method: dpo, train_from: {text}}}}}\n"
    )
    assert way in refusal(recipe)


def test_an_evaluation_takes_no_config(config: Path) -> None:
    recipe = config.with_name("r.yaml")
    recipe.write_text(
        "launcher: 1\nname: mine\nstages:\n  e:\n    method: evaluate\n"
        "    train_from: my_trl_config.yaml\n    candidates: {a: owner/a}\n"
        "    data: {path: owner/rows}\n"
    )
    assert "evaluate takes no config of TRL" in refusal(recipe)


def test_a_path_in_a_config_is_one_where_something_is_there(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.parent / "out" / "sft"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    config.write_text(DPO.replace("owner/policy", "out/sft"))
    assert only(load_recipe(str(config), method="dpo")).models == {"policy": str(folder)}
    config.write_text(DPO)
    assert only(load_recipe(str(config), method="dpo")).models == {"policy": "owner/policy"}


def test_a_revision_is_that_of_the_config_s_model(config: Path, tmp_path: Path) -> None:
    config.write_text(DPO + "model_revision: v1.0\n")
    assert only(load_recipe(str(config), method="dpo")).models == {"policy": "owner/policy@v1.0"}
    config.write_text(DPO.replace("model_name_or_path: owner/policy\n", "model_revision: v1.0\n"))
    assert "model_revision: of no model; name the stage's `policy` NAME@v1.0" in refusal(
        config, method="dpo"
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    config.write_text(DPO.replace("owner/policy", "own") + "model_revision: v1.0\n")
    recipe = load_recipe(str(config), method="dpo")
    assert only(recipe).models == {"policy": str(tmp_path / "own")}
    assert any("model_revision: left out: a folder has no revisions" in w for w in recipe.warnings)


def test_a_revision_beside_a_reward_model_is_refused(config: Path) -> None:
    config.write_text(DPO + "model_revision: v1.0\nreward_model_path: owner/judge\n")
    assert "model_revision: is it of `policy`, or of `reward_model` too?" in refusal(
        config, method="ppo"
    )


def test_adapters_have_trl_s_defaults_and_not_the_recipe_s(config: Path) -> None:
    config.write_text(DPO + "use_peft: true\n")
    peft = only(load_recipe(str(config), method="dpo")).peft
    assert peft == Peft(r=16, alpha=32, dropout=0.05, targets=("q_proj", "v_proj"))
    own = only(load_recipe(str(config), ["peft.targets=all-linear"], method="dpo")).peft
    assert own is not None and own.targets == "all-linear"
    assert only(load_recipe(str(config), ["peft="], method="dpo")).peft is None


def test_lora_keys_without_use_peft_make_no_adapter(config: Path) -> None:
    config.write_text(DPO + "lora_r: 8\n")
    recipe = load_recipe(str(config), method="dpo")
    assert only(recipe).peft is None
    assert any("there is no adapter without `use_peft: true`" in w for w in recipe.warnings)


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ("", "bfloat16"), ("bf16: true\ntorch_dtype: float32", "bfloat16"),
        ("fp16: true", "float16"), ("bf16: false", "float32"), ("torch_dtype: auto", "bfloat16"),
        ("bf16: false\ndtype: float16", "float16"), ("dtype: float32", "bfloat16"),
        ("dtype: float32\nbf16: false", "float32"),
    ],
)  # fmt: skip
def test_the_dtype_is_what_trl_would_compute_in(config: Path, keys: str, dtype: str) -> None:
    config.write_text(f"{DPO}{keys}\n")
    assert only(load_recipe(str(config), method="dpo")).dtype == dtype


def test_reward_functions_may_be_the_recipe_s_beside_the_config_or_a_model(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model_name_or_path: owner/m\ndataset_name: owner/d\nper_device_train_batch_size: 8\n"
        "reward_funcs: [accuracy, mine, owner/rm]\nreward_weights: [1.0, 0.5, 2]\n"
    )
    (tmp_path / "rewards.py").write_text("def mine(completions, **columns):\n    return []\n")
    stage = only(
        load_recipe(str(path), ["rewards.accuracy.function=numeric_answer"], method="grpo")
    )
    assert {reward.label: reward for reward in stage.rewards} == {
        "accuracy": Reward("accuracy", "numeric_answer"),
        "mine": Reward("mine", f"{tmp_path}/rewards.py:mine", weight=0.5),
        "rm": Reward("rm", model="owner/rm", weight=2),
    }


def test_a_reward_function_beside_the_config_may_be_bound_in_any_way_and_its_file_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model_name_or_path: owner/m\ndataset_name: owner/d\nper_device_train_batch_size: 8\n"
        "reward_funcs: [mine]\n"
    )
    (tmp_path / "rewards.py").write_text("if True:\n    mine_reward = print\n")
    stage = only(load_recipe(str(path), method="grpo"))
    assert stage.rewards == (Reward("mine", f"{tmp_path}/rewards.py:mine_reward"),)
    (tmp_path / "rewards.py").write_text("x = 1\ndef mine(completions)\n    return []\n")
    assert "rewards.py:2 is no Python: expected ':'" in refusal(path, method="grpo")


def test_functions_of_trl_and_paths_of_import_are_taken_as_trl_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text("def size(completions):\n    return []\n")
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "c.yaml"
    path.write_text(
        "model_name_or_path: owner/m\ndataset_name: owner/d\nper_device_train_batch_size: 8\n"
        "reward_funcs: [reasoning_accuracy_reward, get_soft_overlong_punishment, mine.size,\n"
        "  pack.age.judge]\n"
    )
    recipe = load_recipe(str(path), method="grpo")
    overlong = {"max_completion_len": 1280, "soft_punish_cache": 256}
    assert only(recipe).rewards == (
        Reward("reasoning_accuracy_reward", "reasoning_accuracy_reward"),
        Reward("get_soft_overlong_punishment", "get_soft_overlong_punishment", options=overlong),
        Reward("size", f"{tmp_path}/here/mine.py:size"),
        Reward("judge", "pack.age.judge"),
    )
    assert any("pack.age is imported where the training runs" in each for each in recipe.warnings)
    missing = dict(needed(recipe))
    assert set(missing) == {"math_verify", "pack"}
    assert missing["pack"].key == "stages.grpo.rewards.judge"


def test_what_a_function_needs_is_told_before_anything_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "launcher: 1\nname: a\nstages:\n  grpo:\n    method: grpo\n    policy: owner/p\n"
        "    global_batch: 8\n    data: {path: owner/d}\n    rewards: {it: nowhere.at.all}\n"
    )
    recipe = recipe_of(text, "r")
    with pytest.raises(UsageError, match=r"rewards\.it: nowhere\.at\.all is imported where"):
        installed.check(recipe, sys.executable)
    installed.check(recipe, "/another/python")
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    installed.check(recipe, None)


def test_the_same_renames_hold_in_a_train_block() -> None:
    text = (
        "launcher: 1\nname: a\nstages:\n  dpo:\n    method: dpo\n    policy: owner/p\n"
        "    global_batch: 8\n    data: {path: owner/d}\n"
        "    train: {rpo_alpha: 0.5, loss_type: aot_pair, max_target_length: 3}\n"
    )
    with pytest.raises(RecipeErrors) as errors:
        recipe_of(text, "r")
    assert "no key of DPOConfig (TRL 1.16.0) any more: sequences are cut" in str(errors.value)
    recipe = recipe_of(text.replace(", max_target_length: 3", ""), "r")
    assert only(recipe).train == {"loss_type": ["aot", "sft"], "loss_weights": [1.0, 0.5]}
    assert len(recipe.warnings) == 2
    weightless = text.replace("max_target_length: 3", "loss_weights: null")
    assert only(recipe_of(weightless, "r")).train == only(recipe).train


def test_no_key_is_both_renamed_and_removed() -> None:
    assert not set(RENAMES) & set(REMOVED) and not set(RLOO_RENAMES) & set(REMOVED)


def test_a_key_that_the_method_has_now_keeps_its_name() -> None:
    assert present("max_new_tokens", fields("online_dpo").schemas) == "max_new_tokens"
    assert present("max_new_tokens", fields("grpo").schemas) == "max_completion_length"
    assert present("kl_coef", fields("ppo").schemas) == "kl_coef"
    assert present("kl_coef", fields("rloo").schemas) == "beta"
    assert present("kl_coef", fields("dpo").schemas) == "kl_coef"


def test_an_old_rloo_is_told_what_it_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model_name_or_path: owner/m\ndataset_name: owner/d\nper_device_train_batch_size: 8\n"
        "reward_funcs: [tag_count]\nrloo_k: 4\n"
    )
    warnings = load_recipe(str(path), method="rloo").warnings
    assert "`num_iterations` 1 (`num_ppo_epochs` once 4)" in warnings[0]


@pytest.mark.parametrize(
    ("path", "keys", "method"),
    [
        ("zephyr/dpo/config_full.yaml", {}, "dpo"),
        ("recipes/config_sft_full.yaml", {}, "sft"),
        ("sft/dpo.yaml", {}, "dpo"),
        ("online-dpo/a.yaml", {}, "online_dpo"),
        ("zephyr/orpo/a.yaml", {}, "orpo"),
        ("a.yaml", {"num_generations": 4}, "grpo"),
        ("a.yaml", {"kl_coef": 1, "total_episodes": 9, "rloo_k": 2}, "rloo"),
        ("a.yaml", {"desirable_weight": 1, "beta": 1}, "kto"),
        ("a.yaml", {"packing": True}, "sft"),
        ("a.yaml", {"learning_rate": 1}, None),
    ],
)
def test_the_method_is_told_by_the_nearest_name_or_the_keys(
    path: str, keys: dict[str, object], method: str | None
) -> None:
    place = Place("a", 1, 1, Path())
    document = Node({key: Node(1, place, place) for key in keys}, place, place)
    assert guess(Path(path), document) == method


def test_a_folder_is_reported_file_by_file(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "tests.yml").write_text("on: push\n")
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "good.yaml").write_text(DPO)
    (tmp_path / "dpo" / "bad.yml").write_text(DPO + "learning_rte: 1\n")
    (tmp_path / "part.yaml").write_text("launcher: 1\nmodel: owner/m\n")
    (tmp_path / "z.yaml").write_text((CONFIGS / "accelerate" / "zero3.yaml").read_text())
    (tmp_path / "filter.yaml").write_text("model_name_or_path: a/b\npass_rate_min: 0.1\n")
    (tmp_path / "none.yaml").write_text("model_name_or_path: a/b\n")
    found = {report.file: report for report in survey(tmp_path)}
    assert {file: (report.kind, report.result) for file, report in found.items()} == {
        "dpo/bad.yml": ("config", "refused"),
        "dpo/good.yaml": ("config", "warnings"),
        "filter.yaml": ("other", "refused"),
        "none.yaml": ("config", "refused"),
        "part.yaml": ("part", "ok"),
        "z.yaml": ("accelerate", "warnings"),
    }
    assert found["none.yaml"].errors == ("its method cannot be told; say `--method`",)


def test_validate_of_a_folder_ends_with_2_where_a_file_is_refused(tmp_path: Path) -> None:
    bad = launcher("validate", str(CONFIGS / "refused"), "--json", folder=tmp_path, code=2)
    assert {each["result"] for each in bad.data("configs")} == {"refused"}
    good = launcher("validate", CONFIGS.name + "/kto", folder=CONFIGS.parent)
    assert "plain.yaml" in good.out and "1 warnings" in good.err


def test_validate_says_where_the_rest_of_what_is_said_of_a_folder_is(tmp_path: Path) -> None:
    for text, hint in ((DPO, True), (DPO.replace("max_seq_length: 512\n", ""), False)):
        (tmp_path / "dpo.yaml").write_text(text)
        ended = launcher("validate", tmp_path, "--method", "dpo", folder=tmp_path)
        assert ended.err.endswith("1 warnings; all that is said: --json\n") == hint


@pytest.mark.parametrize("name", ["sft/old_names", "sft/handbook_mixture", "dpo/handbook_qlora"])
def test_validate_prints_the_keys_that_a_config_was_taken_to_say(name: str, tmp_path: Path) -> None:
    method, file = name.split("/")[0], CONFIGS / f"{name}.yaml"
    ended = launcher("validate", "--method", method, file, folder=tmp_path)
    recipe = load_recipe(str(file), method=method)
    read = yaml.safe_load(ended.out)["stages"]
    for stage in recipe.stages:
        assert read[stage.name].get("train", {}) == dict(stage.train)
    assert recipe_of(ended.out, "printed").stages == recipe.stages


def test_submit_plans_a_config_with_the_words_of_what_was_made_of_it(
    config: Path, tmp_path: Path
) -> None:
    ended = launcher(
        "submit", "--method", "dpo", str(config), "model=Qwen/Qwen2.5-0.5B", "--dry-run",
        "--cluster", "a100_40", folder=tmp_path,
    )  # fmt: skip
    assert "dpo" in ended.out
    assert "taken as `global_batch: 8`" in ended.err
    assert "now called max_length" in ended.err


def test_no_config_whatever_ends_in_anything_but_a_recipe_or_its_errors(tmp_path: Path) -> None:
    chance = random.Random(7)
    values: list[object] = [
        None, True, False, 0, -3, 2.5, 10**30, "x", "a/b", "auto", "", [], ["a"], [None], {},
        {"a": 1}, [{"path": "a/b", "columns": [1]}],
        {"datasets": [1, {"id": 3}, {"id": "a/b", "weight": "y"}]},
    ]  # fmt: skip
    keys = [*TAKEN, *LEFT_OUT, *RENAMES, *REMOVED, "loss_type", "rpo_alpha", "total_episodes"]
    path, taken = tmp_path / "c.yaml", 0
    for _ in range(200):
        method = chance.choice(["sft", "dpo", "kto", "reward", "grpo", "rloo", "ppo", "online_dpo"])
        document: dict[str, object] = {"model_name_or_path": "a/b", "dataset_name": "a/c"}
        document |= {key: chance.choice(values) for key in chance.sample(keys, 3)}
        path.write_text(json.dumps(document))
        try:
            load_recipe(str(path), method=method)
            taken += 1
        except RecipeErrors as errors:
            assert str(errors)
    assert taken > 10
