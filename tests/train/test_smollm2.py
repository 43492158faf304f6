"""The demo's model, from its package."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from launcher.worker import smollm2


@pytest.mark.long
def test_the_packages_weights_answer_and_pad_with_a_token_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    assert smollm2.prepare(folder)
    assert list(folder.parent.iterdir()) == [folder], "nothing is left aside"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert "system" not in text
    asked = tokenizer(text, return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(answer)


def test_a_model_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert smollm2.main(["--to", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert f"is in {tmp_path}" in capsys.readouterr().out
