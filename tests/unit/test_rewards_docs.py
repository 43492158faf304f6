"""What `docs/rewards.md` says of rewards holds."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

from launcher.recipe.library import named
from launcher.recipe.load import load_recipe, recipe_of
from launcher.report import signs
from launcher.worker.rewards.judge import UserJudge
from launcher.worker.rewards.user import UserFunction

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    found = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return str(found[0])


def test_its_recipe_loads_and_its_function_judges(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(block("python"))
    (tmp_path / "preference.jsonl").write_text('{"chosen": "a", "rejected": "b"}\n')
    (tmp_path / "questions.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (tmp_path / "r.yaml").write_text(block("yaml"))
    stage = load_recipe(str(tmp_path / "r.yaml")).stage("grpo")
    assert [(each.label, each.weight) for each in stage.rewards] == [
        ("accuracy", 1.0),
        ("form", 0.2),
        ("helpful", 0.5),
    ]
    assert stage.rewards[0].function == f"{file}:accuracy"
    judge = UserJudge("accuracy", UserFunction(str(file), "accuracy", file))
    texts = ["It is 7", "7 it is", [{"role": "assistant", "content": "so 7"}]]
    assert judge(["?"] * 3, texts, [[1]] * 3, answer=["7"] * 3, level=[1] * 3) == [1, 0, 1]


def test_its_tables_are_the_library_and_trl_s() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", TEXT, re.MULTILINE)
    assert {name for name, _ in rows} == set(named())
    for name, options in named().items():
        stated = next(text for row, text in rows if row == name)
        for key, option in options.items():
            assert f"`{key}`" in stated or stated == "both (needed)"
            if option.default is not None:
                assert str(option.default).lower().replace("1e-06", "1e-6") in stated


def test_its_functions_of_trl_and_of_packages_load() -> None:
    rewards = re.findall(r"```yaml\n(rewards:.*?)```", TEXT, re.DOTALL)[0]
    text = "launcher: 1\nname: r\nstages:\n  grpo:\n    method: grpo\n    policy: owner/p\n"
    text += "    global_batch: 8\n    data: {path: owner/d}\n" + indent(rewards, "    ")
    stage = recipe_of(text, "r").stage("grpo")
    assert [each.function for each in stage.rewards] == [
        "accuracy_reward", "get_soft_overlong_punishment", "my_package.rewards.taste"
    ]  # fmt: skip


def test_its_thresholds_are_those_of_the_signs() -> None:
    table = TEXT.split("## Signs of trouble")[1]
    stated = (signs.FLAT_GROUPS, signs.FLAT_STD, signs.ENTROPY_FALL, signs.CLIPPED, signs.KL_TOKEN)
    assert stated == (0.8, 0.05, 0.25, 0.5, 0.5)
    assert (signs.WINDOW, signs.LONGER, signs.SHORTER) == (10, 2.0, 0.25)
    said = ("80 %", "5 %", "a quarter of the first", "half of the", "twice as long", "0.5 nats")
    assert [words for words in (*said, "ten rollouts") if words not in table] == []
