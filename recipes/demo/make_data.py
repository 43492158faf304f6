"""Write the demo's data beside this file: `python recipes/demo/make_data.py [--to FOLDER]`.

A small shop answers short letters: something is broken, late, praised, or asked for. What a good
answer is depends on the letter (see `rule.py`): name the thing, in the right tone, and say what
happens next. Answers are put together from parts that are each good or poor at random, so that SFT
learns to write answers of mixed quality, the preferences (by the rule, with noise) tell good from
poor, and PPO can do better than the answers it was shown. Held-out letters are about things that no
training letter mentions. Everything follows from one seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rule

HERE = Path(__file__).resolve().parent
SEED = 29
SFT_ROWS, PREFERENCE_ROWS, PROMPT_ROWS, HELD_OUT_ROWS = 512, 512, 1024, 160
HELD_OUT_EVERY = 4
"""Every fourth thing is in held-out letters alone."""
CERTAINTY = 3.0
"""How sure preferences are: a point more is preferred with probability 1 / (1 + e^-3) = 0.95."""

_ITEMS = """
    kettle lamp blender clock radio heater fan mixer basket bucket ladder mirror candle pillow
    blanket carpet cushion curtain shelf cabinet bench stool table chair mattress bicycle helmet
    tent backpack wallet jacket hat belt violin guitar drum piano flute camera printer keyboard
    monitor speaker phone charger laptop tablet watch ring necklace kite puzzle doll train
"""
ITEMS = _ITEMS.split()
FAULTS = ("a crack", "a dent", "a scratch", "a loose part", "a missing part", "a bad smell")

LETTERS: Mapping[str, Sequence[str]] = {
    "fault": (
        "The {item} I bought has {fault}.",
        "My {item} came with {fault}.",
        "There is {fault} in my new {item}.",
        "I opened the box and the {item} has {fault}.",
    ),
    "late": (
        "My {item} has not arrived.",
        "Where is the {item} I ordered?",
        "I am still waiting for my {item}.",
        "The {item} I ordered is a week late.",
    ),
    "praise": (
        "I love my new {item}.",
        "The {item} works very well.",
        "My {item} looks great.",
        "What a lovely {item} you sold me.",
    ),
    "stock": (
        "Do you sell a {item}?",
        "Is there a {item} in stock?",
        "Can I buy a {item} from you?",
        "Have you got a {item} for my sister?",
    ),
}

RIGHT_OPENINGS: Mapping[str, Sequence[str]] = {
    "fault": ("We are sorry about the {thing}.", "Sorry that the {thing} is not right."),
    "late": ("We are sorry that the {thing} is late.", "Sorry for the wait for the {thing}."),
    "praise": ("Thank you for your words on the {thing}.", "Thanks, the {thing} is our favourite."),
    "stock": ("Yes, we have the {thing}.", "Yes, the {thing} is here."),
}
FLAT_OPENINGS = (
    "We got your note on the {thing}.",
    "This is about the {thing}.",
    "We read what you say of the {thing}.",
    "Noted, the {thing}.",
)
ACTIONS: Mapping[str, Sequence[str]] = {
    "fault": ("We will send a new one.", "We will mend it for free."),
    "late": ("We will send it today.", "We will find out where it is."),
    "praise": ("Enjoy it for many years.", "Please enjoy it."),
    "stock": ("We will keep one for you.", "We will bring one to the door."),
}
IDLE = (
    "These things happen.",
    "Our shop is open all week.",
    "Please read the rules of the shop.",
    "That is all we can say.",
    "We sell a lot of things.",
    "Ask us again next week.",
)
VAGUE = ("order", "product", "thing")


@dataclass(frozen=True)
class Letter:
    kind: str
    item: str
    text: str

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]


def letters(rng: random.Random, items: Sequence[str]) -> Iterator[Letter]:
    """Every letter about `items` once, in random order, the kinds in turn."""
    by_kind = {}
    for kind, forms in LETTERS.items():
        faults = FAULTS if kind == "fault" else ("",)
        every = [
            Letter(kind, item, form.format(item=item, fault=fault))
            for item, form, fault in itertools.product(items, forms, faults)
        ]
        by_kind[kind] = rng.sample(every, len(every))
    # Faults have more forms than the others; each kind starts again when it is used up.
    for i in itertools.count():
        for written in by_kind.values():
            yield written[i % len(written)]


def answer(rng: random.Random, letter: Letter, care: float) -> str:
    """An answer whose parts are each right with probability `care`."""
    thing = letter.item if rng.random() < care else rng.choice(VAGUE)
    if rng.random() < care:
        opening = rng.choice(RIGHT_OPENINGS[letter.kind])
    elif rng.random() < 0.6:
        opening = rng.choice(FLAT_OPENINGS)
    else:
        opening = rng.choice(RIGHT_OPENINGS[rng.choice([k for k in LETTERS if k != letter.kind])])
    ending = rng.choice(ACTIONS[letter.kind] if rng.random() < care else IDLE)
    return f"{opening.format(thing=thing)} {ending}"


def preference(rng: random.Random, letter: Letter) -> dict[str, Any]:
    """Two answers of differing care, the better by the rule most often the chosen one."""
    first = answer(rng, letter, care=rng.random())
    second = first
    while second == first:
        second = answer(rng, letter, care=rng.random())
    ahead = rule.points(first, letter.kind, letter.item) - rule.points(
        second, letter.kind, letter.item
    )
    if rng.random() > 1 / (1 + math.exp(-CERTAINTY * ahead)):
        first, second = second, first
    return {"prompt": letter.prompt, "chosen": _says(first), "rejected": _says(second)}


def data_sets() -> dict[str, list[dict[str, Any]]]:
    """File name → its rows."""
    rng = random.Random(SEED)
    things = rng.sample(ITEMS, len(ITEMS))
    held_out = things[::HELD_OUT_EVERY]
    seen = [item for item in things if item not in held_out]

    def take(count: int, items: Sequence[str]) -> Iterator[Letter]:
        return itertools.islice(letters(rng, items), count)

    return {
        "sft": [
            {"prompt": letter.prompt, "completion": _says(answer(rng, letter, care=0.45))}
            for letter in take(SFT_ROWS, seen)
        ],
        "preference": [preference(rng, letter) for letter in take(PREFERENCE_ROWS, seen)],
        "prompts": [{"prompt": letter.prompt} for letter in take(PROMPT_ROWS, seen)],
        "held_out": [
            {"prompt": letter.prompt, "kind": letter.kind, "item": letter.item}
            for letter in take(HELD_OUT_ROWS, held_out)
        ],
    }


def _says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's data.")
    parser.add_argument("--to", type=Path, default=HERE / "data", help="the folder for the files")
    folder = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in data_sets().items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
