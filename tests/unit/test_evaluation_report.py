"""The text of an evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from launcher.records.evaluation import (
    Answer,
    Candidate,
    Comparison,
    EvaluationResult,
    Interval,
    Sample,
    figures,
)
from launcher.report.evaluation import render_markdown, render_text, table


def document(**changes: Any) -> dict[str, Any]:
    """An evaluation of two candidates, as it is read from JSON."""
    sft = Candidate(
        label="sft",
        model="/runs/sft/model",
        measures={"reward": Interval(0.5, 0.4, 0.6), "rule": Interval(2.0, 1.9, 2.1)},
        against_baseline={},
        kl_token=0.0,
        kl_sequence=Interval(0.0, 0.0, 0.0),
        length=20.25,
        repetition=0.0125,
        eos_rate=1.0,
    )
    won = Comparison(win_rate=Interval(0.75, 0.66, 0.82), difference=Interval(0.75, 0.5, 1.0))
    ppo = dataclasses.replace(
        sft,
        label="ppo",
        model="/runs/ppo/model",
        measures={"reward": Interval(1.25, 1.0, 1.5), "rule": Interval(2.5, 2.25, 2.75)},
        against_baseline={"reward": won, "rule": won},
        kl_token=0.15,
        kl_sequence=Interval(3.0, 2.5, 3.5),
    )
    answers = {
        "sft": Answer("No idea.", {"reward": 0.25, "rule": 1.0}),
        "ppo": Answer("Two | lines\nhere.", {"reward": 1.0, "rule": 3.0}),
    }
    result = EvaluationResult(
        baseline="sft",
        reference="/runs/sft/model",
        reward_model="/runs/rm/model",
        prompts=96,
        seed=7,
        confidence=0.95,
        ngram=3,
        candidates=(sft, ppo),
        samples=(Sample("Where is my kettle?", answers),),
    )
    return dataclasses.asdict(dataclasses.replace(result, **changes))


def test_the_table_has_a_row_for_each_candidate_under_one_header() -> None:
    header, sft, ppo = table(document())
    assert header[:4] == ["model", "reward", "Δ against sft", "win rate against sft"]
    compared = ["+0.75 [+0.50, +1.00]", "75% [66%, 82%]"]
    shown = ["1.25 [1.00, 1.50]", *compared, "2.50 [2.25, 2.75]", *compared]
    assert ppo == ["ppo", *shown, "0.150", "3.00 [2.50, 3.50]", "20.2", "1.2%", "100%"]
    assert sft[2:4] == ["", ""], "the baseline is not compared with itself"


def test_the_text_shows_every_answer_under_its_prompt_with_its_scores() -> None:
    lines = render_text(document()).splitlines()
    prompt = lines.index("» Where is my kettle?")
    assert lines[prompt + 1] == "  sft       No idea. (reward 0.25, rule 1.00)"
    assert lines[prompt + 2] == "  ppo       Two | lines here. (reward 1.00, rule 3.00)"


def test_the_text_says_how_sure_it_is_and_of_what() -> None:
    text = render_text(document())
    assert "96 held-out prompts, seed 7; in brackets the 95% interval; a tie is half a win." in text
    assert "KL is against sft, in nats." in text


def test_without_a_reference_there_is_no_kl() -> None:
    found = document(reference=None)
    for candidate in found["candidates"]:
        candidate["kl_token"] = candidate["kl_sequence"] = None
    header, _, ppo = table(found)
    assert ppo[header.index("KL a token")] == ""
    assert "KL is" not in render_text(found)


def test_long_answers_are_folded_below_themselves() -> None:
    found = document(samples=())
    words = " ".join(["word"] * 60)
    found["samples"] = [
        {"prompt": words, "answers": {"sft": {"text": words, "measures": {"reward": 1.0}}}}
    ]
    text = render_text(found, width=60)
    lines = text[text.index("»") :].splitlines()
    assert all(len(line) <= 60 for line in lines)
    answer = lines.index(next(line for line in lines if line.startswith("  sft")))
    assert all(line.startswith(" " * 12 + "word") for line in lines[answer + 1 : -1])


def test_an_empty_answer_is_called_nothing() -> None:
    found = document()
    found["samples"][0]["answers"]["sft"]["text"] = " \n"
    assert "(nothing) (reward 0.25" in render_text(found)


def test_bars_and_line_ends_do_not_break_a_markdown_table() -> None:
    text = render_markdown(document())
    assert "| ppo | Two \\| lines<br>here. | 1.00 | 3.00 |" in text
    assert "| model | sft | ppo |" in text
    assert "> Where is my kettle?" in text


def test_one_candidate_is_compared_with_nothing() -> None:
    found = document()
    found["candidates"] = found["candidates"][:1]
    header, sft = table(found)
    assert header[:3] == ["model", "reward", "rule"] and len(sft) == len(header)
    assert "half a win" not in render_text(found)


def test_perplexity_stands_last_where_the_data_has_completions() -> None:
    assert "perplexity" not in table(document())[0]
    found = document()
    for candidate in found["candidates"]:
        candidate["perplexity"] = {"mean": 7.5, "low": 7.0, "high": 8.25}
    header, _, ppo = table(found)
    assert (header[-1], ppo[-1]) == ("perplexity", "7.50 [7.00, 8.25]")
    assert "Perplexity is of the data's own completions." in render_markdown(found)


def test_an_answer_without_a_score_has_an_empty_cell() -> None:
    found = document()
    del found["samples"][0]["answers"]["ppo"]["measures"]["rule"]
    assert "| ppo | Two \\| lines<br>here. | 1.00 |  |" in render_markdown(found)


def test_a_gate_can_name_every_figure() -> None:
    result = msgspec.convert(document(), EvaluationResult)
    sft, ppo = result.candidates
    close = dataclasses.replace(ppo, perplexity=Interval(7.5, 7.0, 8.0))
    found = figures(dataclasses.replace(result, candidates=(sft, close)))
    assert found["ppo/reward"] == 1.25 and found["ppo/rule/win_rate"] == 0.75
    assert found["ppo/perplexity"] == 7.5 and found["ppo/kl"] == 0.15
    assert "sft/perplexity" not in found and "sft/reward/win_rate" not in found
