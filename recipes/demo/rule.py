"""What a good answer of the shop is: the generator's own rule.

It labels the preferences that the reward model learns from, with noise, and it judges the held-out
answers. Neither SFT nor reward model nor PPO ever sees it.
"""

from __future__ import annotations

import re
from typing import Any

TONE = {"fault": "sorry", "late": "sorry", "praise": "thank", "stock": "yes"}
"""Kind of letter → the word that sets the right tone."""

ACTION = {"fault": "we will", "late": "we will", "stock": "we will", "praise": "enjoy"}
"""Kind of letter → the words that say what happens next."""

FEWEST_WORDS, MOST_WORDS = 4, 24


def points(answer: str, kind: str, item: str) -> float:
    """0 to 3 points for the thing's name, the tone and the action; less for what is off.

    `kind` is a key of `TONE` and `item` the thing that the letter is about. A point goes for
    saying sorry where nothing is wrong, half a point each for a length outside 4 to 24 words, an
    end without a full stop, and three words said twice.
    """
    text = answer.lower()
    words = re.findall(r"[a-z']+", text)
    triples = list(zip(words, words[1:], words[2:]))  # noqa: B905 (of unequal length)
    earned = (item in words) + (TONE[kind] in text) + (ACTION[kind] in text)
    lost = (
        1.0 * ("sorry" in words and TONE[kind] != "sorry")
        + 0.5 * (not FEWEST_WORDS <= len(words) <= MOST_WORDS)
        + 0.5 * (not text.rstrip().endswith((".", "!")))
        + 0.5 * (len(set(triples)) < len(triples))
    )
    return earned - lost


def score(prompts: list[Any], completions: list[Any], **columns: list[Any]) -> list[float]:
    """The points of each completion; the data set's columns `kind` and `item` say of what."""
    answers = [completion[0]["content"] for completion in completions]
    return [
        points(answer, kind, item)
        for answer, kind, item in zip(answers, columns["kind"], columns["item"], strict=True)
    ]
