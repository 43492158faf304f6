"""What is found in pairs of answers before a training learns from them."""

from __future__ import annotations

from typing import Any

from launcher.worker.offline.pairs import of_rows


def pair(chosen: str, rejected: str, prompt: str = "q") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_equal_repeated_and_reversed_pairs_are_counted_and_warned_of() -> None:
    rows = [pair("a", "b"), pair("c", "c"), pair("a", "b"), pair("b", "a"), pair("a", "b", "other")]
    found = of_rows(rows)
    assert (found.rows, found.identical, found.repeated, found.reversed) == (5, 1, 1, 1)
    said = "; ".join(found.warnings)
    assert "in 1 of 5 pairs chosen and rejected are the same" in said
    assert "1 of 5 pairs stand in an earlier row too" in said
    assert "1 of 5 pairs stand in an earlier row the other way round" in said


def test_pairs_whose_chosen_answer_is_mostly_the_longer_one_are_warned_of() -> None:
    rows = [pair("long enough" if i % 4 else "no", "short", str(i)) for i in range(100)]
    found = of_rows(rows)
    assert (found.longer_chosen, found.longer_rejected) == (75, 25)
    (warning,) = found.warnings
    assert warning.startswith("the chosen answer is the longer one in 75 of 100 pairs")


def test_what_chance_gives_is_no_length_bias() -> None:
    assert not of_rows([pair("longer", "short"), pair("as long", "this")]).warnings
    rows = [pair("longer" if i % 20 < 11 else "no", "short", str(i)) for i in range(2000)]
    assert not of_rows(rows).warnings


def test_messages_are_measured_by_what_they_say() -> None:
    rows = [
        {"chosen": [{"role": "assistant", "content": "four"}], "rejected": [{"content": None}]},
    ]
    found = of_rows(rows)
    assert (found.mean_chosen, found.mean_rejected, found.longer_chosen) == (4, 0, 1)
