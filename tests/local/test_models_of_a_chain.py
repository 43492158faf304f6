"""What the stages of a chain hand on: adapters, whole weights, finished models, checkpoints."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.local.machine import RECIPES, LocalShell

MODEL = RECIPES / "tiny" / "model"


def recipe(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(f'launcher: 1\nname: {name}\nextends: ["{RECIPES}/tiny/ppo"]\n{text}\n')
    return str(path)


def logits(model: Any) -> Any:
    import torch

    model.config.pad_token_id = 0
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits


def test_each_stage_of_a_lora_chain_leaves_its_adapter_and_whole_weights_that_agree(
    shell: LocalShell,
) -> None:
    text = "peft: {method: lora, r: 4, alpha: 64}"
    run = shell.data("submit", recipe(shell.home, "lora", text), "--wait")["run"]
    states = {s["name"]: s["state"] for s in shell.data("status", run)["stages"]}
    assert states == dict.fromkeys(("sft", "rm", "ppo", "eval"), "complete")

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    stages = shell.runs / run / "stages"
    for stage, base, kind, keywords in (
        ("sft", MODEL, AutoModelForCausalLM, {}),
        ("rm", stages / "sft" / "model", AutoModelForSequenceClassification, {"num_labels": 1}),
        ("ppo", stages / "sft" / "model", AutoModelForCausalLM, {}),
    ):
        bare = kind.from_pretrained(base, dtype=torch.float32, **keywords)
        before = logits(bare).clone()
        adapted = logits(PeftModel.from_pretrained(bare, stages / stage / "adapter"))
        whole = logits(kind.from_pretrained(stages / stage / "model", dtype=torch.float32))
        assert torch.allclose(adapted, whole, atol=1e-5), stage
        assert not torch.allclose(adapted, before, atol=1e-3), stage


def test_ppo_on_given_models_goes_on_after_a_stop_to_the_same_weights(shell: LocalShell) -> None:
    names = "stages: {rm: {train: {max_steps: 2}}, ppo: null, eval: null}"
    given = shell.data("submit", recipe(shell.home, "given", names), "--wait")["run"]
    uses = {
        name: f"stages.{name}.use={shell.runs / given / 'stages' / name / 'model'}"
        for name in ("sft", "rm")
    }
    # Enough steps that a stop finds it at work on a fast machine too: each takes 0.03 s there.
    text = "stages: {eval: null, ppo: {train: {max_steps: 100, save_steps: 100000}}}"
    words = ("submit", recipe(shell.home, "ppo", text), *uses.values())

    run = shell.data(*words)["run"]
    assert [s["state"] for s in shell.data("status", run)["stages"]][:2] == ["given", "given"]
    shell.wait_for_steps(run, 2, "ppo")
    for supervisor in shell.processes(run, "launcher.scheduler.entry"):
        os.kill(supervisor, signal.SIGUSR2)
    shell.wait_for_state(run, "complete")
    undisturbed = shell.data(*words, "--new", "--wait")["run"]

    ppo = shell.runs / run / "stages" / "ppo"
    assert shell.outcomes(run, "ppo") == ["stopped", "complete"]
    other = shell.runs / undisturbed / "stages" / "ppo"
    weights = "model/model.safetensors"
    assert (ppo / weights).read_bytes() == (other / weights).read_bytes()
    assert (ppo / weights).read_bytes() != (
        shell.runs / given / "stages" / "sft" / weights
    ).read_bytes()
