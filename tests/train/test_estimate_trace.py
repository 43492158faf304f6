"""`launcher estimate --trace`: the formula and a traced step side by side."""

from __future__ import annotations

from pathlib import Path

from tests.unit.command import ROOT, launcher

TINY = ROOT / "recipes" / "tiny" / "model"


def test_a_traced_step_stands_beside_the_formula_phase_by_phase(tmp_path: Path) -> None:
    words = ("estimate", "--model", TINY, "--seq-len", "64", "--method", "dpo", "--trace")
    (stage,) = launcher(*words, "--json", folder=tmp_path).data("estimate")["stages"]
    trace = stage["trace"]
    assert set(trace["phases"]) <= set(trace["formula"])
    assert trace["peak"] == max(trace["phases"].values())
    assert trace["modelled"]
    assert trace["versions"]["trl"]
    assert trace["formula_peak"] == max(trace["formula"].values())


def test_a_stage_of_several_gpus_is_traced_on_one_and_compared_to_the_same(tmp_path: Path) -> None:
    words = ("estimate", "tiny/sft", "--gpus", "2", "--zero", "2", "--trace")
    said = launcher(*words, folder=tmp_path).out
    assert "2 GPUs, ZeRO 2" in said
    assert "sft: one process traced" in said
    rows = [line.split()[0] for line in said.split("one process traced")[1].splitlines()[1:]]
    assert {"load", "loss", "backward", "step", "peak"} <= set(rows)


def test_what_cannot_be_traced_is_said_and_the_formula_stands_alone(tmp_path: Path) -> None:
    words = ("estimate", "--model", TINY, "--seq-len", "64", "--peft", "qlora", "--trace")
    said = launcher(*words, folder=tmp_path).out
    assert "sft is not traced: " in said
    assert "allocated" in said
