"""What learns from data on two processes: DDP, ZeRO-2 and ZeRO-3 do what one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.train.offline import HELD_OUT, prepare, trained
from tests.train.online import train_processes

SHORT = ("train.max_steps=3", "train.save_steps=2", "resources.micro_batch=8")
LORA = ("peft.r=4",)
QLORA = (*LORA, "peft.quantization=nf4")


@pytest.mark.parametrize(
    ("stage", "zero", "words"),
    [
        ("dpo", 3, ()),
        *[
            pytest.param(stage, zero, words, marks=pytest.mark.long)
            for stage in ("sft", "rm", "dpo", "kto")
            for zero in (0, 2, 3)
            for words in ((), LORA, QLORA)
            if (stage, zero, words) != ("dpo", 3, ())
        ],
        pytest.param("dpo", 3, ("train.precompute_ref_log_probs=true",), marks=pytest.mark.long),
    ],
)
def test_two_processes_do_what_one_does(
    tmp_path: Path, stage: str, zero: int, words: tuple[str, ...]
) -> None:
    # KTO compares the rows of a micro-batch, so that its halves are other batches.
    steps = ("train.loss_type=apo_zero_unpaired",) if stage == "kto" else ()
    held_out = (f"data.eval_path={HELD_OUT}",) if stage == "rm" else ()
    asked = (*SHORT, *steps, *held_out, *words)
    alone = trained(tmp_path / "alone", stage, *asked)
    made = prepare(
        tmp_path / "two", stage, *asked, "resources.gpus=2", f"resources.zero_stage={zero}"
    )
    assert train_processes(made, 2) == [0, 0], (made.run.root / "rank0.log").read_text()[-3000:]

    assert made.logged("loss") == pytest.approx(alone.logged("loss"), abs=2e-4)
    kind = AutoModelForSequenceClassification if stage == "rm" else AutoModelForCausalLM
    _, report = kind.from_pretrained(str(made.paths.model), output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert made.paths.complete.is_file()
    if stage == "rm":
        accuracy = json.loads(made.paths.complete.read_text())["metrics"]["eval_accuracy"]
        assert accuracy * 32 == pytest.approx(round(accuracy * 32))
