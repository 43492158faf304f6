"""A config that was written for TRL trains by what it says, from the command to COMPLETE."""

from __future__ import annotations

import pytest

from tests.local.machine import RECIPES, LocalShell

TINY = RECIPES / "tiny"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\\n{{ m['content'] }}<|im_end|>\\n"


@pytest.mark.long
def test_an_sft_config_of_a_mixture_and_a_template_trains_as_a_stage(shell: LocalShell) -> None:
    rows = (TINY / "data" / "sft.jsonl").read_text().splitlines(keepends=True)
    (shell.home / "more.jsonl").write_text("".join(rows[:40]))
    (shell.home / "zero.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    (shell.home / "config.yaml").write_text(
        f"""\
model_name_or_path: {TINY}/model
torch_dtype: float32
bf16: false
datasets:
  - {{path: json, data_files: {TINY}/data/sft.jsonl, columns: [messages]}}
  - {{path: more.jsonl}}
test_split_size: 16
chat_template: "{TEMPLATE}{{% endfor %}}"
evaluation_strategy: steps
eval_steps: 3
max_steps: 3
max_seq_length: 64
learning_rate: 2e-3
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
use_peft: true
lora_r: 4
report_to: [wandb]
"""
    )
    words = ("--method", "sft", "config.yaml", "--accelerate", "zero.yaml", "resources.gpus=1")
    run = shell.data("submit", *words, "--wait")["run"]
    assert shell.stage(run)["state"] == "complete"
    steps = [row for row in shell.metrics(run, "sft") if "loss" in row]
    # 232 rows, 16 of them held out; sixteen a step, for two processes took eight each.
    assert [row["epoch"] for row in steps] == pytest.approx([n / 14 for n in (1, 2, 3)], rel=0.05)
    assert any("eval_loss" in row for row in shell.metrics(run, "sft"))
    left = shell.runs / run / "stages" / "sft"
    assert "m['role']" in (left / "model" / "chat_template.jinja").read_text()
    assert '"r": 4' in (left / "adapter" / "adapter_config.json").read_text()
