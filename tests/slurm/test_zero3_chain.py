"""The whole chain with every model's weights divided over two nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.slurm.shell import Shell

TINY = str(Path(__file__).parents[2] / "recipes" / "tiny" / "ppo.yaml")
DIVIDED = ("resources.gpus=2", "resources.nodes=2", "resources.zero_stage=3")


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "written"), [("float32", "F32"), ("bfloat16", "BF16")])
def test_a_chain_under_zero_3_hands_whole_models_on_and_is_complete(
    shell: Shell, dtype: str, written: str
) -> None:
    words = ("submit", TINY, *DIVIDED, f"dtype={dtype}", "--new", "--wait")
    run = shell.data(*words)["run"]
    stages = shell.data("status", run)["stages"]
    assert [(s["state"], s["attempts"]) for s in stages] == [("complete", 1)] * 4
    plan = json.loads((shell.runs / run / "plan.json").read_text())
    assert [(s["zero_stage"], s["allocation"]["nodes"]) for s in plan["stages"]] == [(3, 2)] * 4
    # The next stage has loaded the one before: its loss goes on from there, not from the start.
    losses = [row["loss"] for row in shell.metrics(run, "sft") if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
    for stage in ("sft", "rm", "ppo"):
        weights = shell.runs / run / "stages" / stage / "model" / "model.safetensors"
        with safe_open(weights, framework="pt") as saved:
            names = saved.keys()
            assert all(saved.get_slice(name).get_shape() for name in names)
            assert {saved.get_slice(name).get_dtype() for name in names} == {written}
            assert any("embed_tokens" in name for name in names)
    evaluation = shell.data("report", run)["evaluations"]["eval"]
    measured = {c["label"]: c for c in evaluation["candidates"]}
    assert set(measured) == {"base", "sft", "ppo"}
    # PPO went on from the SFT model, which its reference is: the base is much farther away.
    assert abs(measured["ppo"]["kl_token"]) < abs(measured["base"]["kl_token"])
