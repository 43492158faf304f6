"""The benchmark of the memory estimate: rows are read by rule, and scored or listed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory_accuracy import ROWS, main
from benchmarks.memory_rows import notes
from benchmarks.memory_rows.adapters import ATTENTION, MLP, Adapter, adapter, peft
from benchmarks.memory_rows.case import Unknowable
from benchmarks.memory_rows.models import plain, shape_of_row
from benchmarks.memory_rows.reading import case_of
from benchmarks.memory_rows.row import COLUMNS, Row, load
from benchmarks.memory_rows.score import Point, Verdict, score, verdicts
from benchmarks.memory_rows.scoring import KINDS, Listed, Scored, groups, scored
from launcher.memory.types import GIB
from launcher.models.table import known

ROOT = Path(__file__).parents[2]
MISTRAL = {
    "source": "fms-acceleration bench",
    "model": "mistral-7b",
    "method": "SFT",
    "params_b": "7.24",
    "peft": "lora r16 qkvo",
    "precision": "bf16",
    "optimizer": "adamw_torch(foreach)",
    "zero_or_fsdp": "none",
    "n_gpus": "1.0",
    "micro_batch": "4.0",
    "seq_len": "4096.0",
    "grad_ckpt": "True",
    "flash_attn": "True",
    "offload": "none",
    "gpu": "A100-80GB",
    "peak_gib": "24.871",
    "notes": "metric=torch.max_memory_allocated; framework=none; packed=yes;"
    " transformers4.48.1/trl0.13.0/torch2.4.1; nvidia_smi_gib=28.88",
}


def rows(tmp_path: Path, *changes: dict[str, str]) -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows([MISTRAL | change for change in changes])
    return path


def row(tmp_path: Path, **changes: str) -> Row:
    return load(rows(tmp_path, changes))[0]


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return load(ROWS)


def test_every_row_of_the_file_is_scored_or_listed_with_a_reason(table: list[Row]) -> None:
    found = [scored(each) for each in table]
    listed = [each for each in found if isinstance(each, Listed)]
    assert len(found) == len(table) == 436
    assert all(each.reason for each in listed)
    assert sum(isinstance(each, Scored) and each.point is not None for each in found) >= 285


def test_a_listed_row_says_what_its_source_leaves_open(tmp_path: Path) -> None:
    found = scored(row(tmp_path, seq_len="", notes=MISTRAL["notes"].replace("yes", "no(orca)")))
    assert isinstance(found, Listed)
    assert "length of the longest is not stated" in found.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", Adapter(full=True)),
        ("lora r16 qkvo", Adapter(r=16, targets=ATTENTION)),
        ("lora r8 q,v", Adapter(r=8, targets=("q_proj", "v_proj"))),
        ("lora r32 qv (config yaml)", Adapter(r=32, targets=("q_proj", "v_proj"))),
        ("qlora-nf4 r16 qkvo", Adapter(base="nf4", r=16, targets=ATTENTION)),
        ("qlora nf4 dq r8 all-linear", Adapter(base="nf4-double", r=8, targets=())),
        ("gptq r16 qkvo", Adapter(base="gptq4", r=16, targets=ATTENTION)),
        ("qlora gptq-int4 r64", Adapter(base="gptq4", r=64)),
        ("qlora int4 (bnb) r8 default", Adapter(base="nf4", r=8)),
        ("lora r8 default", Adapter(r=8)),
        ("lora (trainable 2,097,152)", Adapter(trainable=2_097_152)),
        ("lora bnb.nf4-dq (trainable 4,194,304)", Adapter(base="nf4-double", trainable=4_194_304)),
        (
            "lora r64 + emb,lm_head trainable",
            Adapter(r=64, whole=("embed_tokens", "lm_head")),
        ),
        (
            "lora r32 ['v_proj', 'q_proj'] dora=True trainable=3670016",
            Adapter(r=32, targets=("v_proj", "q_proj"), dora=True, trainable=3_670_016),
        ),
        ("lora r8 q,v,o,mlp", Adapter(r=8, targets=("q_proj", "v_proj", "o_proj", *MLP))),
    ],
)
def test_what_trains_is_read_from_each_form_of_text(text: str, expected: Adapter) -> None:
    assert adapter(text) == expected


HOUSE = {"source": "a lab's report", "notes": "metric=allocated; trl; transformers 4.56.0"}


def test_rows_of_other_methods_are_read_as_those_methods(tmp_path: Path) -> None:
    full = case_of(row(tmp_path, **HOUSE, method="DPO", peft="full"))
    assert (full.stage.method, set(full.stage.models)) == ("dpo", {"policy", "reference"})
    lora = case_of(row(tmp_path, **HOUSE, method="dpo"))
    assert set(lora.stage.models) == {"policy"}
    assert case_of(row(tmp_path, **HOUSE, method="RM")).stage.method == "reward"
    for unknown in ("GRPO", "ORPO"):
        with pytest.raises(Unknowable, match=unknown):
            case_of(row(tmp_path, **HOUSE, method=unknown))


def test_what_a_row_says_of_optimizer_kernels_and_sharding_is_not_passed_over(
    tmp_path: Path,
) -> None:
    assert (
        case_of(row(tmp_path, **HOUSE, optimizer="AdamW8bit")).stack.optimizer == "adamw_bnb_8bit"
    )
    for wrong in ({"optimizer": "GaLore"}, {"zero_or_fsdp": "FSDP SHARD_GRAD_OP"}):
        with pytest.raises(Unknowable):
            case_of(row(tmp_path, **HOUSE, **wrong))
    fused = case_of(row(tmp_path, **{**HOUSE, "notes": f"{HOUSE['notes']}; liger=True"}))
    assert fused.stack.loss == "liger"
    assert case_of(row(tmp_path, **HOUSE, precision="pure bf16")).stack.weights == "bfloat16"
    assert adapter("DoRA r16 all-linear") == Adapter(r=16, targets=(), dora=True)
    foreign = case_of(row(tmp_path, **{**HOUSE, "source": "Unsloth blog"}))
    assert "which kernels unsloth ran" in foreign.doubts


@pytest.mark.parametrize("text", ["boft rNone ['q_proj']", "prefix_tuning", "qlora gptq-int8 r8"])
def test_adapters_that_the_launcher_does_not_train_are_refused(text: str) -> None:
    with pytest.raises(Unknowable):
        adapter(text)


def test_a_rank_that_is_not_told_follows_from_the_number_of_trained_parameters() -> None:
    llama = known("meta-llama/Llama-2-7b-hf")
    assert llama is not None
    found = peft(adapter("lora (trainable 4,194,304)"), llama, ("q_proj", "v_proj"))
    assert found is not None
    assert found.r == 8
    with pytest.raises(Unknowable, match="no rank"):
        peft(adapter("lora (trainable 4,194,305)"), llama, ("q_proj", "v_proj"))


@pytest.mark.parametrize(
    ("name", "params_b", "expected"),
    [
        ("mistral-7b", "7.24", "mistralai/Mistral-7B-v0.1"),
        ("llama3.2-3b", "3.213", "meta-llama/Llama-3.2-3B"),
        ("llama2-70b", "68.98", "meta-llama/Llama-2-70b-hf"),
        ("gemma2-2b", "2.61", "google/gemma-2-2b"),
        ("gemma-2b", "2.51", "google/gemma-2b"),
        ("phi-1.5-1.3B", "1.3", "microsoft/phi-1_5"),
        ("StableLM Alpha-3B", "3.0", "stabilityai/stablelm-base-alpha-3b"),
        ("qwen1-7b", "7.72", "Qwen/Qwen-7B"),
        ("qwen3-8b(doc example)", "8.19", "Qwen/Qwen3-8B"),
        ("Meta-Llama-3-8B", "8.03", "meta-llama/Meta-Llama-3-8B"),
    ],
)
def test_models_are_known_by_the_names_that_people_write(
    tmp_path: Path, name: str, params_b: str, expected: str
) -> None:
    assert shape_of_row(row(tmp_path, model=name, params_b=params_b)).name == expected


def test_a_model_whose_size_does_not_fit_its_name_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(Unknowable, match="stated with"):
        shape_of_row(row(tmp_path, params_b="13.0"))
    with pytest.raises(Unknowable, match="not known"):
        shape_of_row(row(tmp_path, model="6.8B", params_b="6.8"))


def test_names_without_tuning_and_version_are_one() -> None:
    assert plain("meta-llama/Llama-2-7b-hf") == plain("Llama 2 7B") == plain("llama2-7b")
    assert plain("llama2-13b") != plain("llama2-7b")


def test_the_metric_follows_from_the_notes(tmp_path: Path) -> None:
    def counted(text: str) -> str:
        return notes.metric(row(tmp_path, notes=f"metric={text}"))[0]

    assert counted("torch.max_memory_allocated/1e9") == "allocated"
    assert counted("torch.max_memory_reserved; torch2.1.1") == "reserved"
    assert counted("GPU memory consumed (GB, nvidia-smi/wandb)") == "total"
    assert notes.metric(row(tmp_path, notes="metric=unstated (GB)"))[1] is not None


def test_precision_tells_weights_and_autocast(tmp_path: Path) -> None:
    assert notes.precision(row(tmp_path, precision="bf16+amp")) == ("bfloat16", True)
    assert notes.precision(row(tmp_path, precision="bf16-true")) == ("bfloat16", False)
    assert notes.precision(row(tmp_path, precision="bf16 (adapter fp32)")) == ("bfloat16", False)
    assert notes.precision(row(tmp_path, precision="fp16")) == ("float16", False)
    with pytest.raises(Unknowable):
        notes.precision(row(tmp_path, precision="fp32/bf16(unstated)"))


def test_the_version_of_transformers_tells_its_loss() -> None:
    losses = [notes.loss(version) for version in ("4.45.2", "4.48.1", "4.50.0", "5.13.1")]
    assert losses == ["rebound", "shifted", "stock", "stock"]


def test_what_divides_the_model_is_not_guessed(tmp_path: Path) -> None:
    def divided(text: str) -> notes.Sharding:
        return notes.sharding(row(tmp_path, zero_or_fsdp=text))

    assert divided("FSDP1 full_shard") == notes.Sharding("fsdp", 3)
    assert divided("ZeRO-2") == notes.Sharding("zero", 2)
    assert divided("none") == notes.Sharding("none")
    for text in ("ZeRO-2/DDP(unstated)", "naive model parallel (device_map)"):
        with pytest.raises(Unknowable):
            divided(text)


def test_plugins_of_fms_are_kernels_of_the_stack(tmp_path: Path) -> None:
    plain_trl = case_of(row(tmp_path))
    assert plain_trl.native
    assert plain_trl.stack.fused == frozenset()
    text = MISTRAL["notes"].replace("framework=none", "framework=accelerated-peft-bnb-foak-liger")
    fused = case_of(row(tmp_path, peft="qlora-nf4 r16 qkvo", precision="bf16+amp", notes=text))
    assert not fused.native
    assert fused.stack.base == "nf4-double"
    assert fused.stack.loss == "liger"
    assert {"rms_norm", "rope", "lora"} <= fused.stack.fused


def test_a_figure_below_its_own_states_was_not_measured_with_them(tmp_path: Path) -> None:
    change = {
        "source": "litgpt config_hub",
        "model": "llama3.2-3b",
        "params_b": "3.213",
        "peft": "full",
        "precision": "bf16-true",
        "peak_gib": "15.376",
    }
    with pytest.raises(Unknowable, match="below weights, gradients and moments"):
        case_of(row(tmp_path, **change))


def test_the_score_of_known_errors_is_known() -> None:
    errors = [-0.20, -0.02, 0.00, 0.01, 0.40]
    points = [Point(10.0, 10.0 * (1 + error), margin=0.10) for error in errors]
    found = score(points)
    assert found is not None
    assert found.n == 5
    assert found.median == pytest.approx(0.02)
    assert found.max == pytest.approx(0.40)
    assert found.p95 == pytest.approx(0.20 + 0.8 * (0.40 - 0.20))
    assert found.bias == pytest.approx(0.00)
    # 8.0 / 0.9 is below 10; 14.0 / 0.9 is above 12.5.
    assert found.undersized == pytest.approx(1 / 5)
    assert found.oversized == pytest.approx(1 / 5)
    assert found.margin == pytest.approx(0.10)
    assert score([]) is None


def test_verdicts_count_what_ran_out_and_what_fitted() -> None:
    found = verdicts(
        [Verdict(True, True), Verdict(True, False), Verdict(False, True), Verdict(False, False)]
    )
    assert (found.caught, found.missed, found.false_alarms, found.fitted) == (1, 1, 1, 2)


def test_a_row_is_compared_with_what_its_metric_counts(tmp_path: Path) -> None:
    allocated = scored(row(tmp_path))
    changed = MISTRAL["notes"].replace("allocated", "reserved")
    reserved = scored(row(tmp_path, notes=changed))
    assert isinstance(allocated, Scored)
    assert isinstance(reserved, Scored)
    assert allocated.point is not None
    assert reserved.point is not None
    assert allocated.point.estimated * GIB == allocated.phase.allocated
    assert reserved.point.estimated > allocated.point.estimated


def test_a_figure_in_decimal_units_is_compared_in_gib(tmp_path: Path) -> None:
    change = {"source": "Qwen README profiling", "model": "qwen1-7b", "params_b": "7.72"}
    found = scored(row(tmp_path, **change, peak_gib="81.0"))
    assert isinstance(found, Scored)
    assert found.point is not None
    assert found.point.measured * GIB == pytest.approx(81.0e9)


def test_a_row_that_ran_out_of_memory_is_a_verdict(tmp_path: Path) -> None:
    change = {"peft": "full", "peak_gib": "", "gpu": "A100-40GB"}
    found = scored(row(tmp_path, **change, notes="OOM; " + MISTRAL["notes"]))
    assert isinstance(found, Scored)
    assert found.point is None
    assert found.verdict == Verdict(ran_out=True, refused=True)


def test_rows_of_another_file_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rows(tmp_path, {}, {"peft": "full", "peak_gib": "67.46"})
    assert main(["--rows", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    keys = {"n", "median", "p95", "max", "bias", "undersized", "oversized", "margin"}
    assert set(found["overall"]) == keys
    assert found["overall"]["n"] == found["groups"]["fms-acceleration bench"]["n"] == 2
    assert found["overall"]["median"] < 0.01
    assert main(["--rows", str(path)]) == 0
    assert "overall" in capsys.readouterr().out


def test_a_file_of_another_form_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("source,peak\na,1\n", encoding="utf-8")
    assert main(["--rows", str(path)]) == 2
    assert "columns are missing" in capsys.readouterr().err
    path = rows(tmp_path, {"peak_gib": "much"})
    assert main(["--rows", str(path)]) == 2
    assert ":2: peak_gib is 'much', not a number" in capsys.readouterr().err


def test_the_benchmark_runs_as_a_script_without_torch(tmp_path: Path) -> None:
    check = (
        "import sys; from benchmarks.memory_accuracy import main;"
        f" main(['--rows', {str(rows(tmp_path, {}))!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
    script = [sys.executable, "benchmarks/memory_accuracy.py", "--rows", "nowhere.csv"]
    assert subprocess.run(script, cwd=ROOT, capture_output=True).returncode == 2


def test_what_the_estimate_has_reached_it_keeps(table: list[Row]) -> None:
    found = groups(each for each in map(scored, table) if isinstance(each, Scored))
    scores = {
        name: score([each.point for each in members if each.point is not None])
        for name, members in found.items()
    }
    native, known, _, several = (scores[kind] for kind in KINDS)
    assert native is not None
    assert known is not None
    assert several is not None
    assert native.n >= 16
    assert native.median <= 0.005
    assert native.p95 <= 0.02
    assert known.n >= 104
    assert known.median <= 0.01
    assert known.undersized <= 0.01
    assert known.oversized <= 0.05
    assert several.median <= 0.02


def test_labels_tell_a_row_from_its_neighbours(table: list[Row]) -> None:
    other = replace(table[0], micro_batch=99)
    assert other.label != table[0].label
