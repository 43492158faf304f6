"""The demo's data and the rule behind it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.shipped import shipped

DEMO = shipped("recipes") / "demo"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The generator's module, which finds its rule beside itself as a script does."""
    monkeypatch.syspath_prepend(DEMO)
    yield importlib.import_module("make_data")
    for name in ("make_data", "rule"):
        del sys.modules[name]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"][0]["content"] for row in rows}


def test_the_generator_gives_the_data_that_is_committed(made: Any) -> None:
    for name, rows in made.data_sets().items():
        assert rows == read(DEMO / "data" / f"{name}.jsonl"), name


def test_held_out_letters_are_of_things_that_no_other_letter_is_about(made: Any) -> None:
    held_out = read(DEMO / "data" / "held_out.jsonl")
    words = {row["item"] for row in held_out}
    for name in ("sft", "preference", "prompts"):
        for text in texts(read(DEMO / "data" / f"{name}.jsonl")):
            assert not words & set(text.rstrip(".?").split()), text
    assert len(texts(held_out)) == len(held_out), "each is asked once"


def test_prompts_for_training_do_not_carry_what_the_rule_judges_by() -> None:
    for row in read(DEMO / "data" / "prompts.jsonl"):
        assert list(row) == ["prompt"]


def test_no_one_answer_does_well_on_every_letter(made: Any) -> None:
    held_out = read(DEMO / "data" / "held_out.jsonl")
    best = max(
        sum(made.rule.points(text, row["kind"], row["item"]) for row in held_out) / len(held_out)
        for text in {
            row["chosen"][0]["content"] for row in read(DEMO / "data" / "preference.jsonl")
        }
    )
    assert best < 1.5, "of 3 points"


def test_careful_answers_score_full_points_and_careless_ones_about_none(made: Any) -> None:
    import random

    rng = random.Random(0)
    written = [letter for letter, _ in zip(made.letters(rng, made.ITEMS), range(200), strict=False)]

    def average(care: float) -> float:
        points: list[float] = [
            made.rule.points(made.answer(rng, letter, care), letter.kind, letter.item)
            for letter in written
        ]
        return sum(points) / len(points)

    assert average(1.0) == 3.0
    assert average(0.0) < 0.25
    assert 1.0 < average(0.45) < 1.6


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ("Sorry about the lamp. We will mend it.", 3.0),
        ("Sorry about that. We will mend it.", 2.0),
        ("Sorry about the lamps. We will mend it.", 2.0),
        ("Thank you for the lamp. We will mend it.", 2.0),
        ("Sorry about the lamp. We will mend it", 2.5),
        ("Sorry, lamp.", 1.5),
        ("Sorry about the lamp. We will mend it. " + "And so on it goes. " * 2, 2.5),
        ("Sorry about the lamp. We will mend it. " + "Lots more of this talk. " * 5, 2.0),
        ("", -1.0),
    ],
)
def test_a_fault_is_answered_with_regret_the_things_name_and_an_action(
    made: Any, answer: str, points: float
) -> None:
    assert made.rule.points(answer, "fault", "lamp") == points


def test_regret_where_nothing_is_wrong_costs_a_point(made: Any) -> None:
    assert made.rule.points("Yes, the lamp is here. We will keep it.", "stock", "lamp") == 3.0
    assert made.rule.points("Sorry, yes, the lamp. We will keep it.", "stock", "lamp") == 2.0


def test_the_score_reads_messages_and_columns(made: Any) -> None:
    answers = [[{"role": "assistant", "content": "Thanks, the hat. Enjoy it."}]] * 2
    columns = {"kind": ["praise", "late"], "item": ["hat", "tent"], "other": [1, 2]}
    assert made.rule.score([None, None], answers, **columns) == [3.0, 0.0]
