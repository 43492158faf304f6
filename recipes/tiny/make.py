"""Make the tiny model and data beside this file: `python recipes/tiny/make.py`, training venv.

The model is a random Qwen2 of about 100,000 parameters with a byte-level BPE tokenizer trained on
the data here; pad and end-of-sequence are different tokens. Everything comes from one seed, so a
second call writes the same data, tokenizer and weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SEED = 17
VOCABULARY = 384
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
ANIMALS = ["cat", "dog", "owl", "fox", "hen", "bee", "cow", "elk"]
COLOURS = ["red", "blue", "green", "white", "black", "brown"]


def questions(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Question, right answer, wrong answer; questions and answers of unequal length, for ever."""
    while True:
        kind = rng.randrange(3)
        if kind == 0:
            first = rng.randrange(3, 10)
            steps = rng.randrange(1, 4)
            counted = ", ".join(NUMBERS[first + 1 : first + 1 + steps])
            backwards = ", ".join(NUMBERS[first - i] for i in range(1, steps + 1))
            yield (
                f"Count on from {NUMBERS[first]} by {NUMBERS[steps]}",
                f"After {NUMBERS[first]} comes {counted}.",
                f"{backwards}.",
            )
        elif kind == 1:
            kept = rng.sample(ANIMALS, rng.randrange(2, 6))
            coloured = [f"{rng.choice(COLOURS)} {animal}" for animal in kept]
            yield (
                f"Name the first animal: {', '.join(coloured)}",
                f"The {coloured[0]}.",
                f"The {coloured[-1]}, and the {coloured[-1]}.",
            )
        else:
            words = [rng.choice(COLOURS + ANIMALS) for _ in range(rng.randrange(2, 17))]
            yield (
                f"Say backwards: {' '.join(words)}",
                " ".join(reversed(words)),
                " ".join(sorted(words)) + " and so on",
            )


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (HERE / "data" / name).write_text(text, encoding="utf-8")


def make_data() -> None:
    (HERE / "data").mkdir(exist_ok=True)
    source = questions(random.Random(SEED))
    triples = [next(source) for _ in range(448)]
    write("sft.jsonl", [{"messages": [user(q), assistant(a)]} for q, a, _ in triples[:192]])
    write(
        "preference.jsonl",
        [
            {"prompt": [user(q)], "chosen": [assistant(a)], "rejected": [assistant(wrong)]}
            for q, a, wrong in triples[192:320]
        ],
    )
    write("prompts.jsonl", [{"prompt": [user(q)]} for q, _, _ in triples[320:416]])
    write("held_out.jsonl", [{"prompt": [user(q)]} for q, _, _ in triples[416:]])
    write("answers.jsonl", [{"prompt": [user(q)], "answer": a} for q, a, _ in triples[320:416]])
    write("judged.jsonl", [judged(*t, good=i % 2 == 0) for i, t in enumerate(triples[192:320])])
    # Drawn last, so that what stands above stays as it is.
    more = [next(source) for _ in range(32)]
    write(
        "preference_held_out.jsonl",
        [
            {"prompt": [user(q)], "chosen": [assistant(a)], "rejected": [assistant(wrong)]}
            for q, a, wrong in more
        ],
    )
    write("judged_held_out.jsonl", [judged(*t, good=i % 2 == 0) for i, t in enumerate(more)])


def judged(question: str, right: str, wrong: str, good: bool) -> dict[str, Any]:
    """One answer, and whether it is the right one."""
    answer = assistant(right if good else wrong)
    return {"prompt": [user(question)], "completion": [answer], "label": good}


def make_model() -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [
        message["content"]
        for line in (HERE / "data" / "sft.jsonl").read_text(encoding="utf-8").splitlines()
        for message in json.loads(line)["messages"]
    ]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, START, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE

    torch.manual_seed(SEED)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(HERE / "model")
    (HERE / "model" / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(HERE / "model")


if __name__ == "__main__":
    make_data()
    make_model()
