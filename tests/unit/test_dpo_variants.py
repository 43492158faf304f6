"""The variants of DPO that ship, and what a recipe may ask of its loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.recipe.choices import DPO_LOSSES
from launcher.recipe.load import load_recipe
from launcher.recipe.problems import RecipeErrors
from launcher.shipped import shipped
from tests.unit.command import ROOT

VARIANTS = sorted(path.stem for path in shipped("recipes").glob("dpo_variants/*.yaml"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_dpo_with_a_loss_of_its_own_and_names_its_source(name: str) -> None:
    stage = load_recipe(f"dpo_variants/{name}").stage("dpo")
    assert stage.train["loss_type"] and stage.train["beta"] > 0
    text = (shipped("recipes") / "dpo_variants" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line for line in text.splitlines() if line.startswith("# "))
    assert "arXiv:" in comment or "A note on DPO" in comment


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("aot", {"beta": 0.01}),
        ("aot_unpaired", {"beta": 0.01}),
        ("ld_dpo", {"loss_type": ["sigmoid"], "ld_alpha": 0.5}),
        ("mpo", {"learning_rate": 5e-6}),
        ("robust", {"beta": 0.1, "label_smoothing": 0.1, "max_length": 512}),
        ("tr_dpo", {"beta": 0.05, "learning_rate": 1e-6, "max_grad_norm": 2.0,
                    "warmup_steps": 100, "ref_model_sync_steps": 512}),
    ],
)  # fmt: skip
def test_a_variant_has_the_figures_of_its_paper(name: str, figures: dict[str, object]) -> None:
    train = load_recipe(f"dpo_variants/{name}").stage("dpo").train
    assert {key: train.get(key) for key in figures} == figures
    assert f"`{name}`" in (ROOT / "docs" / "dpo.md").read_text(encoding="utf-8")


def test_every_loss_of_trl_is_in_a_variant() -> None:
    used: set[str] = set()
    for name in VARIANTS:
        losses = load_recipe(f"dpo_variants/{name}").stage("dpo").train["loss_type"]
        used |= {losses} if isinstance(losses, str) else set(losses)
    assert used == set(DPO_LOSSES)


def test_a_variant_goes_with_any_model_and_adapter(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "launcher: 1\nname: mine\nextends: [dpo_variants/rpo, size/0.5b, peft/lora]\n"
    )
    stage = load_recipe(str(tmp_path / "mine.yaml")).stage("dpo")
    assert stage.models == {"policy": "Qwen/Qwen2.5-0.5B-Instruct"}
    assert stage.peft is not None and stage.train["loss_type"] == ["sigmoid", "sft"]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("loss_type: sigmiod", "train.loss_type: no loss sigmiod; there are sigmoid, hinge"),
        ("loss_type: [sigmoid, sft], loss_weights: [1]", "loss_weights: 1 weights for 2 losses"),
        ("loss_type: exo_pair", "exo_pair needs a `label_smoothing` above 0"),
        ("label_smoothing: 0.5", "label_smoothing: it is the share of labels that are wrong"),
        (
            "loss_type: [sigmoid, aot], label_smoothing: 0.1",
            "label_smoothing: means one thing to `sigmoid` and another to `aot`",
        ),
        ("loss_type: [ipo, sft], label_smoothing: 0.1", "label_smoothing: the loss ipo does not"),
        (
            "loss_type: apo_zero, f_divergence_type: js_divergence",
            "f_divergence_type: the loss apo_zero has no form for js_divergence",
        ),
        ("loss_type: aot, use_weighting: true", "use_weighting: AOT sorts its pairs"),
        ("padding_free: true", "padding_free: the installed TRL's DPO trainer pads all the same"),
        (
            "sync_ref_model: true, precompute_ref_log_probs: true",
            "sync_ref_model: what is computed before the training cannot follow it",
        ),
    ],
)
def test_what_trl_would_stop_at_or_leave_out_is_refused_before_queueing(
    train: str, said: str, tmp_path: Path
) -> None:
    refused(tmp_path, f"dpo\n    train: {{{train}}}", said)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("sft\n    train: {padding_free: true}", "padding_free: it cuts nothing: set `max_length"),
        ("sft\n    train: {packing: true, max_length: null}", "max_length: packing fills"),
        ("sft\n    train: {packing_strategy: best}", "got 'best', expected one of bfd"),
        ("sft\n    peft: {quantization: int8, dora: true}", "peft.dora: DoRA cannot read back"),
        (
            "kto\n    peft: {r: 8}\n    train: {sync_ref_model: true}",
            "sync_ref_model: an adapter's",
        ),
        (
            "kto\n    train: {train_sampling_strategy: random}",
            "train_sampling_strategy: random parts the rows that KTO compares",
        ),
    ],
)
def test_packing_and_adapters_are_checked_too(stage: str, said: str, tmp_path: Path) -> None:
    refused(tmp_path, stage, said)


def refused(folder: Path, stage: str, said: str) -> None:
    (folder / "r.yaml").write_text(
        "launcher: 1\nname: r\nmodel: me/base\nstages:\n  it:\n"
        f"    data: {{path: me/rows}}\n    global_batch: 8\n    method: {stage}\n"
    )
    with pytest.raises(RecipeErrors) as errors:
        load_recipe(str(folder / "r.yaml"))
    assert said in str(errors.value)
