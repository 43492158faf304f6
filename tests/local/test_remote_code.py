"""Code that lies beside a model runs where the command line says so, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from launcher.plan.document import plan_from_json
from tests.local.machine import RECIPES, LocalShell

CODE = """\
from pathlib import Path

from transformers import Qwen2Config, Qwen2ForCausalLM

Path({mark!r}).open("a").write("ran\\n")


class OwnForCausalLM(Qwen2ForCausalLM):
    def forward(self, *words, **options):
        found = super().forward(*words, **options)
        found.logits = found.logits + 0.0
        return found
"""
RECIPE = """\
launcher: 1
name: own-code
extends: ["{tiny}/sft"]
model: {model}
stages:
  sft: {{train: {{max_steps: 2}}}}
  more: {{method: sft, model: "stage:sft", data: {{path: {tiny}/data/sft.jsonl}}, global_batch: 16,
         train: {{max_steps: 1, max_length: 64}}}}
"""


def test_it_runs_where_the_command_line_says_so_and_goes_along_with_what_it_trained(
    shell: LocalShell,
) -> None:
    mark, model = shell.home / "ran", shell.home / "model"
    shutil.copytree(RECIPES / "tiny" / "model", model)
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own.OwnForCausalLM"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(CODE.format(mark=str(mark)))
    recipe = shell.home / "own.yaml"
    recipe.write_text(RECIPE.format(tiny=RECIPES / "tiny", model=json.dumps(str(model))))

    plain = shell.data("submit", str(recipe), "--dry-run")["plan"]
    trusting = shell.data("submit", str(recipe), "--trust-remote-code", "--wait")["run"]
    assert plain["identity"][:8] not in trusting, "without, it would be another run"
    assert len(mark.read_text().splitlines()) >= 2, "once a stage at least"
    for stage in ("sft", "more"):
        saved = shell.runs / trusting / "stages" / stage / "model"
        assert (saved / "own.py").is_file()
        named = json.loads((saved / "config.json").read_text())
        assert named["architectures"] == ["OwnForCausalLM"]

    # A plan that somebody hands over asks for it in vain.
    plan = shell.runs / trusting / "plan.json"
    assert plan_from_json(plan.read_text()).trust_remote_code
    refused = shell.start("submit", str(plan), "--new")
    words = refused.communicate(timeout=60)[1]
    assert refused.returncode == 2 and "--trust-remote-code" in words
    shutil.copy(plan, given := Path(shell.home / "given.json"))
    assert shell.data("submit", str(given), "--trust-remote-code")["run"] == trusting
