"""SFT, reward models, DPO and KTO on the tiny model: resumed, adapted, quantized, handed on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from launcher.errors import UsageError
from launcher.recipe import adapters
from launcher.recipe.types import Peft
from launcher.records import pairs
from launcher.run import folder
from launcher.shipped import shipped
from launcher.worker import export, models, quantize
from launcher.worker.offline import order
from tests.train import offline
from tests.train.offline import HELD_OUT, logits, prepare, trained
from tests.train.online import Trained, train
from tests.train.test_models import context
from tests.train.tiny_models import BASE

SHORT = ("train.max_steps=3", "train.save_steps=100")
LORA = ("peft.r=4",)
FOLLOWING = ("train.sync_ref_model=true", "train.ref_model_sync_steps=1")


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("dpo", ()),
        ("kto", LORA),
        pytest.param("dpo", LORA, marks=pytest.mark.long),
        pytest.param("kto", (), marks=pytest.mark.long),
        # The reference has moved by then.
        pytest.param("dpo", FOLLOWING, marks=pytest.mark.long),
        pytest.param("kto", FOLLOWING, marks=pytest.mark.long),
        pytest.param("dpo", ("train.precompute_ref_log_probs=true",), marks=pytest.mark.long),
        pytest.param("sft", (*LORA, "peft.quantization=nf4"), marks=pytest.mark.long),
        pytest.param("rm", (*LORA, "peft.quantization=nf4"), marks=pytest.mark.long),
    ],
)
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, stage: str, words: tuple[str, ...]
) -> None:
    whole = trained(tmp_path / "whole", stage, *SHORT, *words)
    parts = prepare(tmp_path / "parts", stage, *SHORT, *words)
    assert not train(parts, stop_after=2)
    assert [path.name for path in parts.paths.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    assert train(parts)

    assert len(whole.metrics) == 3
    assert parts.weights == whole.weights
    assert parts.logged("loss") == whole.logged("loss")


@pytest.mark.parametrize("words", [(), LORA])
def test_a_training_that_had_done_its_last_step_is_saved_as_it_was(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    whole = trained(tmp_path / "whole", "sft", "train.max_steps=2", "train.save_steps=2", *words)
    before = whole.weights
    shutil.rmtree(whole.paths.model)
    assert train(whole)
    assert whole.weights == before
    assert [row["step"] for row in whole.metrics] == [1, 2]


# Adapters and quantized bases


@pytest.fixture
def at_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the trained model says before it is saved, and the types of what trained."""
    found: dict[str, Any] = {}
    save = export.save

    def noted(context: Any, trainer: Any) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        found["logits"] = logits(model)
        found["types"] = {weight.dtype for weight in model.parameters() if weight.requires_grad}
        save(context, trainer)

    monkeypatch.setattr(export, "save", noted)
    yield found


DORA = (*LORA, "peft.quantization=nf4-double", "peft.dora=true")


@pytest.mark.parametrize(
    ("stage", "words", "near"),
    [
        ("rm", DORA, 1e-5),
        *[
            pytest.param(stage, (*LORA, *words), near, marks=pytest.mark.long)
            for stage in ("sft", "rm", "dpo", "kto")
            for words, near in (
                ((), 1e-5),
                (("peft.quantization=nf4",), 1e-5),
                (("peft.quantization=nf4-double", "peft.dora=true"), 1e-5),
                # Products of an int8 base round their inputs too.
                (("peft.quantization=int8",), 1e-2),
                (("peft.modules_to_save=[embed_tokens]",), 1e-5),
                (("peft.targets=[q_proj,v_proj]", "peft.dora=true"), 1e-5),
            )
        ],
    ],
)
def test_the_next_stage_reads_what_was_trained_on_the_quantized_base(
    tmp_path: Path,
    at_the_end: dict[str, Any],
    stage: str,
    words: tuple[str, ...],
    near: float,
) -> None:
    made = trained(tmp_path, stage, *SHORT, *words)
    kind = AutoModelForSequenceClassification if stage == "rm" else AutoModelForCausalLM
    model, report = kind.from_pretrained(str(made.paths.model), output_loading_info=True)

    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(logits(model), at_the_end["logits"], atol=near, rtol=0)
    assert (made.paths.adapter / "adapter_config.json").is_file()
    # TRL would have turned adapters on a quantized base into bfloat16 without a master.
    assert at_the_end["types"] == {torch.float32}


def test_without_bitsandbytes_a_quantized_base_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(tmp_path, "sft", *LORA, "peft.quantization=nf4")
    monkeypatch.setattr(models, "load_causal", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"stages\.sft\.peft\.quantization needs bitsandbytes"):
        train(made)


@pytest.mark.long
def test_a_chain_of_adapters_hands_whole_models_on_to_ppo(
    tmp_path: Path, at_the_end: dict[str, Any]
) -> None:
    made = prepare(tmp_path, "sft", *SHORT, recipe="tiny/ppo", wide=("peft={r: 4}",))
    said: dict[str, torch.Tensor] = {}
    for stage in ("sft", "rm", "ppo"):
        here = Trained(made.run, stage)
        for needed in (here.paths.attempts, here.paths.checkpoints):
            needed.mkdir(parents=True, exist_ok=True)
        assert train(here)
        said[stage] = at_the_end["logits"]
    sft = AutoModelForCausalLM.from_pretrained(str(made.run.stage("sft").model))
    torch.testing.assert_close(logits(sft), said["sft"], atol=1e-5, rtol=0)
    first = Trained(made.run, "ppo").metrics[0]
    # The policy starts as its reference, which is the base that both have in common.
    assert abs(first["kl"]) < 1e-4


# Losses


def test_the_sigmoid_loss_with_smoothing_is_conservative_dpo(tmp_path: Path) -> None:
    share = 0.2
    other = AutoModelForCausalLM.from_pretrained(BASE)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    other.save_pretrained(tmp_path / "other")
    words = (f"reference={tmp_path / 'other'}", "train.max_steps=1", "train.beta=2.0")
    (plain,) = trained(tmp_path / "plain", "dpo", *words).metrics
    smooth = trained(tmp_path / "smooth", "dpo", *words, f"train.label_smoothing={share}")
    (smoothed,) = smooth.metrics

    # −log σ(−x) = −log σ(x) + x, and x is the margin of the rewards.
    assert abs(plain["rewards/margins"]) > 0.1
    assert smoothed["rewards/margins"] == plain["rewards/margins"]
    expected = plain["loss"] + share * plain["rewards/margins"]
    assert smoothed["loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in shipped("recipes").glob("dpo_variants/*.yaml"))
)
def test_a_variant_of_dpo_trains(tmp_path: Path, name: str) -> None:
    given = offline.stage_of_recipe(f"dpo_variants/{name}", "dpo").train
    keep = (
        *("loss_type", "loss_weights", "label_smoothing", "beta", "use_weighting"),
        *("f_divergence_type", "f_alpha_divergence_coef", "discopop_tau", "sync_ref_model"),
        "ref_model_mixup_alpha",
    )
    words = [f"train.{key}={json.dumps(given[key])}" for key in keep if key in given]
    made = trained(tmp_path, "dpo", *words, "train.max_steps=2", "resources.micro_batch=4")
    assert len(made.metrics) == 2
    assert all(norm > 0 for norm in made.logged("grad_norm"))


def test_a_reference_is_loaded_only_where_nothing_else_says_what_it_would(tmp_path: Path) -> None:
    losses = [
        trained(tmp_path / str(n), "dpo", *SHORT, *words).logged("loss")
        for n, words in enumerate(((), ("train.precompute_ref_log_probs=true",)))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


# The order of judged answers


SIDES = ("chosen", "rejected")
PAIRS = [{"prompt": f"p{n} ", **{side: f"{side} {n}" for side in SIDES}} for n in range(64)]
JUDGED = [
    {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
    for side in SIDES
    for pair in PAIRS
]
TALKS = [
    {
        side: [{"role": "user", "content": p["prompt"]}, {"role": "assistant", "content": p[side]}]
        for side in SIDES
    }
    for p in PAIRS
]


def drawn(root: Path, rows: list[dict[str, Any]], **changed: Any) -> list[dict[str, Any]]:
    from datasets import Dataset

    found = order.drawn(context(root, "sft", method="kto", **changed), Dataset.from_list(rows))
    return list(found)


@pytest.mark.parametrize("rows", [PAIRS, TALKS, JUDGED])
def test_the_seed_draws_the_order_of_judged_answers(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    first, again, other = (drawn(tmp_path, rows, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert drawn(tmp_path, rows, seed=1, train={"data_seed": 2}) == other

    assert {tuple(row) for row in map(sorted, first)} == {("completion", "label", "prompt")}
    assert len({json.dumps(row) for row in first}) == len(first) == 128
    assert sorted(map(json.dumps, first)) == sorted(map(json.dumps, other))
    for start in range(0, 128, 16):
        assert {row["label"] for row in first[start : start + 16]} == {True, False}


def test_a_recipe_that_says_so_trains_judged_answers_in_the_files_order(tmp_path: Path) -> None:
    stated = {"train_sampling_strategy": "sequential"}
    assert drawn(tmp_path, JUDGED, train=stated) == JUDGED


@pytest.mark.parametrize("rows", [PAIRS, JUDGED])
def test_each_step_of_kto_sees_good_answers_and_bad_ones(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = trained(tmp_path, "kto", f"data.path={tmp_path / 'rows.jsonl'}", *SHORT)
    assert all({"rewards/chosen", "rewards/rejected"} <= set(step) for step in made.metrics)


@pytest.mark.parametrize("rows", [PAIRS, TALKS, JUDGED])
def test_kto_takes_as_many_steps_as_are_planned(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    several = rows[:20]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    data = (f"data.path={tmp_path / 'rows.jsonl'}", f"data.rows={len(several)}")
    epochs = ("train.max_steps=null", "train.num_train_epochs=2", "data.eval_path=null")
    made = trained(tmp_path, "kto", *data, *epochs)
    planned = folder.load_plan(made.run).stage("kto")
    assert planned.prediction is not None
    # Batches of 16 of 20 answers, or of the 40 of 20 pairs.
    assert len(made.metrics) == planned.prediction.steps == (4 if rows is JUDGED else 6)


# An adapter of another program


def test_what_is_said_of_an_adapter_alone_makes_a_model_to_start_from(tmp_path: Path) -> None:
    for base, adapter in (
        (AutoModelForCausalLM, models.lora_config(Peft(r=2), "CAUSAL_LM")),
        (AutoModelForSequenceClassification, models.lora_config(Peft(r=2), "SEQ_CLS")),
    ):
        folder = tmp_path / base.__name__
        given = base.from_pretrained(BASE, **({"num_labels": 1} if "Seq" in base.__name__ else {}))
        get_peft_model(given, adapter).save_pretrained(folder)
        said = adapters.in_folder(folder)
        command = said.partition("this makes of the two: ")[2].replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, cwd=folder, check=True, timeout=300)
        assert adapters.in_folder(folder) == said
        for reader in (base, AutoTokenizer):
            assert reader.from_pretrained(folder / "merged")
        assert not (folder / "merged" / "adapter_config.json").exists()


# Reward models


def rewards_of(folder: str, rows: list[dict[str, Any]]) -> torch.Tensor:
    """Of each row, the score of its chosen answer less that of its rejected one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def score(row: dict[str, Any], side: str) -> torch.Tensor:
        tokens = tokenizer.apply_chat_template(row["prompt"] + row[side], return_tensors="pt")
        with torch.no_grad():
            return model(input_ids=tokens["input_ids"]).logits[0, 0]

    return torch.stack([score(row, "chosen") - score(row, "rejected") for row in rows])


def test_the_accuracy_of_a_reward_model_is_that_of_all_held_out_pairs(tmp_path: Path) -> None:
    # Thirty-two pairs by batches of five: the last has two.
    words = ("train.max_length=96", "global_batch=5", "resources.micro_batch=5")
    made = trained(
        tmp_path,
        "rm",
        *words,
        "train.max_steps=1",
        "train.learning_rate=1e-9",
        f"data.eval_path={HELD_OUT}",
    )
    last = json.loads(made.paths.metrics.read_text().splitlines()[-1])
    rows = [json.loads(line) for line in Path(HELD_OUT).read_text().splitlines()]
    right = (rewards_of(str(made.paths.model), rows) > 0).float().mean().item()

    assert 0 < right < 1
    assert last["eval_accuracy"] == pytest.approx(right)
    found = pairs.read(made.paths)
    assert found is not None and (found.rows, found.identical) == (128, 0)


def test_a_margin_column_is_what_chosen_answers_must_be_ahead_by(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a b", "chosen": "c", "rejected": "d e", "margin": 10.0},
        {"prompt": "b a", "chosen": "d", "rejected": "c e", "margin": 10.0},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 8))
    words = (f"data.path={tmp_path / 'rows.jsonl'}", "train.max_steps=1")
    made = trained(tmp_path, "rm", *words)
    assert made.logged("loss")[0] == pytest.approx(10, abs=1)
    centred = trained(tmp_path / "c", "rm", *words, "train.center_rewards_coefficient=100.0")
    assert centred.logged("loss")[0] > made.logged("loss")[0]


# Packing, padding, templates


def test_rows_without_padding_learn_the_same(tmp_path: Path) -> None:
    words = ("train.max_steps=2", "train.max_length=null")
    padded = trained(tmp_path / "padded", "sft", *words).logged("loss")
    flat = trained(tmp_path / "flat", "sft", *words, "train.padding_free=true").logged("loss")
    assert flat == pytest.approx(padded, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_rows_are_packed(tmp_path: Path, strategy: str) -> None:
    words = ("train.packing=true", f"train.packing_strategy={strategy}", "train.eval_packing=false")
    losses = trained(tmp_path, "sft", *SHORT, *words).logged("loss")
    assert losses[-1] < losses[0] - 0.1


def test_a_template_without_generation_marks_is_refused_and_one_with_them_trains(
    tmp_path: Path,
) -> None:
    own = (Path(BASE) / "chat_template.jinja").read_text()
    assert "{{- '<|im_start|>' + message.role" in own
    marked = (
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
        "{%- if message.role == 'assistant' -%}"
        "{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}"
        "{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}{{- '\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    (tmp_path / "marked.jinja").write_text(marked)
    only = "train.assistant_only_loss=true"
    with pytest.raises(UsageError, match="TRL refuses the stage: The chat template"):
        train(prepare(tmp_path / "own", "sft", *SHORT, only))
    path = f"train.chat_template_path={tmp_path / 'marked.jinja'}"
    made = trained(tmp_path / "marked", "sft", *SHORT, only, path)
    whole = trained(tmp_path / "whole", "sft", *SHORT)
    assert made.logged("loss") != whole.logged("loss")
    # The next stage talks in the template that this one was trained in.
    assert AutoTokenizer.from_pretrained(str(made.paths.model)).chat_template == marked
