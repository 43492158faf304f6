"""Data sets mixed and divided, prompts as conversations, and templates, as trainings read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.recipe.types import Data, Part
from launcher.worker import data, models
from tests.train.test_models import context


def rows(path: Path, *given: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


@pytest.fixture
def first(tmp_path: Path) -> str:
    return rows(tmp_path / "a.jsonl", *({"text": f"a{n}", "source": "x", "n": n} for n in range(8)))


@pytest.fixture
def second(tmp_path: Path) -> str:
    return rows(tmp_path / "b.jsonl", *({"text": f"b{n}", "n": str(n)} for n in range(4)))


def texts(root: Path, given: Data, *, held: bool = False) -> list[str]:
    here = context(root, "sft", data=given)
    found = data.evaluation_set(here, None) if held else data.training_set(here, None)
    assert found is not None
    return list(found["text"])


def test_a_mixture_has_every_row_of_each_and_their_common_columns(
    tmp_path: Path, first: str, second: str
) -> None:
    kept = Data(first, keep=("text",), also=(Part(second, keep=("text",)),))
    here = context(tmp_path, "sft", data=kept)
    mixed = data.training_set(here, None)
    assert sorted(mixed["text"]) == [*(f"a{n}" for n in range(8)), *(f"b{n}" for n in range(4))]
    assert list(mixed["text"]) != sorted(mixed["text"])  # one after the other teaches one at a time
    assert mixed.column_names == ["text"]
    assert list(data.training_set(here, None)["text"]) == list(mixed["text"])


def test_columns_that_are_of_different_kinds_are_told(
    tmp_path: Path, first: str, second: str
) -> None:
    with pytest.raises(UsageError, match="do not have the same kind of columns"):
        texts(tmp_path, Data(first, also=(Part(second),)))
    with pytest.raises(UsageError, match="has no column answer; it has text, source, n"):
        texts(tmp_path, Data(first, keep=("answer",)))


def test_a_share_is_taken_of_each(tmp_path: Path, first: str, second: str) -> None:
    part = Part(second, keep=("text",), share=0.5)
    found = texts(tmp_path, Data(first, keep=("text",), share=0.25, also=(part,)))
    assert sorted(text[0] for text in found) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(("size", "count"), [(0.25, 2), (3, 3)])
def test_rows_that_are_held_out_are_not_trained_on(
    tmp_path: Path, first: str, size: float, count: int
) -> None:
    given = Data(first, hold_out=size)
    trained, held = texts(tmp_path, given), texts(tmp_path, given, held=True)
    assert len(held) == count and sorted(trained + held) == [f"a{n}" for n in range(8)]
    with pytest.raises(UsageError, match=r"data\.hold_out keeps 8 of them"):
        texts(tmp_path, Data(first, hold_out=8))


def test_prompts_of_text_become_conversations_under_a_system_message(tmp_path: Path) -> None:
    path = rows(tmp_path / "p.jsonl", {"problem": "1+1", "answer": 2, "prompt": "not this"})
    given = Data(path, columns={"prompt": "problem"}, as_chat=True)
    here = context(tmp_path, "ppo", data=given)
    (row,) = data.training_set(here, None)
    assert row == {"answer": 2, "prompt": [{"role": "user", "content": "1+1"}]}
    told = Data(path, columns={"prompt": "problem"}, system_prompt="Think.")
    (row,) = data.training_set(context(tmp_path, "ppo", data=told), None)
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]


def test_a_system_message_that_is_there_stays_alone(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "u"}]
    path = rows(tmp_path / "p.jsonl", {"prompt": own}, {"prompt": own[1:]})
    here = context(tmp_path, "ppo", data=Data(path, system_prompt="Think."))
    found = [[turn["content"] for turn in row["prompt"]] for row in data.training_set(here, None)]
    assert found == [["own", "u"], ["Think.", "u"]]


ASKED = [{"role": "user", "content": "1+1"}]
PAIR = {key: [*ASKED, {"role": "assistant", "content": key}] for key in ("chosen", "rejected")}


def test_a_text_prompt_beside_messages_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rows(tmp_path / "c.jsonl", {"prompt": "1+1", "messages": PAIR["chosen"]})
    found = data.training_set(context(tmp_path, "sft", data=Data(path)), None)
    assert found.column_names == ["messages"]
    assert "column prompt is left out" in capsys.readouterr().out


SHARED = [
    {"from": "system", "value": "Count."},
    {"from": "human", "value": "1+1"},
    {"from": "gpt", "value": "2"},
]


@pytest.mark.parametrize("column", ["conversations", "dialog"])
def test_shared_conversations_become_messages_in_the_words_of_chat_templates(
    tmp_path: Path, column: str
) -> None:
    path = rows(tmp_path / "c.jsonl", {column: SHARED, "id": 1}, {column: SHARED[1:], "id": 2})
    mapping = {} if column == "conversations" else {"messages": column}
    found = data.training_set(context(tmp_path, "sft", data=Data(path, columns=mapping)), None)
    assert set(found.column_names) == {"messages", "id"}
    told = [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
    ]
    assert list(found["messages"]) == [told, told[1:]]


def test_a_completion_keeps_its_prompt(tmp_path: Path) -> None:
    path = rows(tmp_path / "c.jsonl", {"prompt": "1+1", "completion": "2"})
    found = data.training_set(context(tmp_path, "sft", data=Data(path)), None)
    assert found.column_names == ["prompt", "completion"]


@pytest.mark.parametrize("method", ["dpo", "reward", "kto"])
def test_a_text_prompt_that_both_conversations_hold_is_left_out(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import Dataset

    folder = str(tmp_path / "saved")
    Dataset.from_list([{"prompt": "1+1", **PAIR}]).save_to_disk(folder)
    found = data.training_set(context(tmp_path, "rm", method=method, data=Data(folder)), None)
    assert list(found) == [PAIR]
    assert "column prompt is left out" in capsys.readouterr().out


def test_the_prompt_that_conversations_share_may_be_too_long(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "word " * 99}]
    longer = {key: [*long, turn] for key, (_, turn) in PAIR.items()}
    path = rows(tmp_path / "p.jsonl", {"prompt": "1+1", **PAIR}, {"prompt": "word", **longer})
    here = context(tmp_path, "rm", data=Data(path, max_prompt_tokens=50))
    (row,) = data.training_set(here, models.tokenizer(context(tmp_path, "sft")))
    assert row["prompt"] == ASKED and len(row["chosen"]) == 1


def test_a_text_prompt_that_conversations_do_not_hold_is_told(tmp_path: Path) -> None:
    answers = {key: turns[1:] for key, turns in PAIR.items()}
    path = rows(tmp_path / "p.jsonl", {"prompt": "1+1", **answers})
    with pytest.raises(UsageError, match="prompts of text, and chosen and rejected are messages"):
        data.training_set(context(tmp_path, "rm", data=Data(path)), None)


def test_a_stage_s_template_and_tokens_go_before_the_tokenizer_s(tmp_path: Path) -> None:
    here = context(tmp_path, "sft", chat_template="{{ messages[0]['content'] }}")
    loaded = models.tokenizer(here)
    turns = [{"role": "user", "content": "hello"}]
    assert loaded.apply_chat_template(turns, tokenize=False) == "hello"
    loaded.save_pretrained(tmp_path / "saved")
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_template == here.stage.chat_template
    word = next(t for t in loaded.get_vocab() if t not in loaded.all_special_tokens)
    assert models.tokenizer(context(tmp_path, "sft", train={"eos_token": word})).eos_token == word
