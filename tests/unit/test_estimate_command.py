"""`launcher estimate`: what it says, and that it is what the estimator says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli.estimate import command
from launcher.errors import DoesNotFit, LauncherError, UsageError
from launcher.memory.estimate import estimate
from launcher.memory.types import GIB, Settings
from launcher.recipe.types import Data, Peft, Stage
from launcher.scheduler.shell import CommandFailed, converse
from tests.unit.command import ROOT, launcher
from tests.unit.planning import shapes

SEVEN = "Qwen/Qwen2.5-7B"
HALF = "Qwen/Qwen2.5-0.5B"


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAUNCHER_CLUSTER", "LAUNCHER_RUNS", "LAUNCHER_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def said(*words: str) -> str:
    done = CliRunner().invoke(command, words)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def stages(*words: str) -> list[dict[str, Any]]:
    document = json.loads(said(*words, "--json"))
    assert document["kind"] == "estimate"
    found: list[dict[str, Any]] = document["data"]["stages"]
    return found


def stage(*words: str) -> dict[str, Any]:
    (only,) = stages(*words)
    return only


def test_flags_give_the_estimate_of_the_stage_that_they_describe() -> None:
    found = stage("--model", SEVEN, "--peft", "qlora", "--micro-batch", "4", "--seq-len", "1024")
    given = Stage(
        "sft",
        "sft",
        {"model": SEVEN},
        data=Data("rows"),
        peft=Peft(quantization="nf4"),
        train={"max_length": 1024},
    )
    under = Settings(micro_batch=4, gradient_checkpointing=True)
    expected = estimate(given, {"model": shapes(SEVEN)}, under)
    assert [phase["items"] for phase in found["phases"]] == [p.items for p in expected.phases]
    assert found["peak"]["total"] == expected.peak.total
    assert found["host_bytes"] == expected.host_bytes
    assert found["models"]["model"]["parameters"] == 7_615_616_512


def test_items_sum_to_what_is_allocated_reserved_and_taken() -> None:
    for phase in stage("--model", HALF, "--method", "ppo")["phases"]:
        items = phase["items"]
        assert sum(items.values()) == phase["total"]
        assert phase["reserved"] == phase["total"] - items.get("context", 0)
        assert phase["allocated"] == phase["reserved"] - items.get("fragmentation", 0)


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--gpus", "16"], "processes", 16),
        (["--gpus", "16"], "processes_per_node", 8),
        (["--gpus", "8", "--gpus-per-node", "4"], "processes_per_node", 4),
        (["--zero", "3"], "zero_stage", 3),
        (["--zero", "2", "--offload", "optimizer"], "offload", "optimizer"),
        (["--no-gradient-checkpointing"], "gradient_checkpointing", False),
        ([], "gradient_checkpointing", True),
        (["--micro-batch", "3"], "micro_batch", 3),
        (["--accumulation", "5"], "accumulation", 5),
    ],
)
def test_a_flag_is_a_setting_of_the_plan(flags: list[str], key: str, value: object) -> None:
    assert stage("--model", HALF, *flags)["settings"][key] == value


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--weights", "float32"], "weights", "float32"),
        (["--no-autocast"], "autocast", False),
        (["--attention", "eager"], "attention", "eager"),
        (["--loss", "stock"], "loss", "stock"),
        (["--optimizer", "adamw_bnb_8bit"], "optimizer", "adamw_bnb_8bit"),
        (["--peft", "lora", "--quantization", "nf4-double"], "base", "nf4-double"),
        (["--dtype", "float16"], "compute", "float16"),
    ],
)
def test_a_flag_is_a_property_of_the_software(flags: list[str], key: str, value: object) -> None:
    assert stage("--model", HALF, *flags)["stack"][key] == value


def test_what_generates_has_half_a_prompt_unless_it_is_said() -> None:
    words = ("--model", HALF, "--method", "grpo", "--seq-len", "1000")
    assert stage(*words)["lengths"] == {"prompt": 500, "completion": 500}
    assert stage(*words, "--prompt-len", "200")["lengths"]["completion"] == 800


def test_one_step_generates_whole_groups() -> None:
    words = ("--model", HALF, "--method", "grpo", "--micro-batch", "4", "train.num_generations=16")
    assert stage(*words)["settings"]["accumulation"] == 4
    assert stage(*words, "--gpus", "8")["settings"]["accumulation"] == 1


def test_a_key_of_the_stage_is_given_as_to_a_recipe_and_checked_as_there() -> None:
    without, beside = (
        stage("--model", HALF, "--method", "grpo", f"train.beta={beta}") for beta in (0, 0.04)
    )
    assert beside["peak"]["total"] > without["peak"]["total"]
    with pytest.raises(UsageError, match="did you mean 'max_length'"):
        said("--model", HALF, "train.max_lenght=3")


def test_larger_cards_fit_what_smaller_ones_do_and_the_margin_is_kept() -> None:
    found = stage("--model", SEVEN)
    fits = [each["fits"] for each in found["gpus"]]
    assert fits == sorted(fits)
    for each in found["gpus"]:
        room = each["memory_gib"] * GIB * (1 - found["margin"])
        assert each["fits"] == (found["peak"]["total"] <= room)


def test_a_share_for_vllm_grows_with_the_card() -> None:
    text = said("--model", HALF, "--method", "grpo", "train.use_vllm=true",
                "train.vllm_mode=colocate")  # fmt: skip
    rows = [line.split() for line in text.splitlines() if " GB " in line]
    taken = [float(row[3]) for row in rows]
    assert taken == sorted(taken)
    assert taken[-1] > taken[0] + 10


def test_a_recipe_is_estimated_stage_by_stage_as_it_is_planned(tmp_path: Path) -> None:
    found = stages("ppo_7b", "--cluster", "mixed")
    planned = json.loads(
        launcher("plan", "ppo_7b", "--cluster", "mixed", "--json", folder=tmp_path).out
    )["data"]["plan"]["stages"]
    assert [each["name"] for each in found] == [each["stage"]["name"] for each in planned]
    for ours, theirs in zip(found, planned, strict=True):
        assert ours["settings"]["micro_batch"] == theirs["micro_batch"]
        assert ours["margin"] == theirs["margin"]
        assert [p["items"] for p in ours["phases"]] == [
            p["items"] for p in theirs["estimate"]["phases"]
        ]


def test_flags_change_what_a_plan_says_of_one_stage() -> None:
    words = ("ppo_7b", "--cluster", "h100_80", "--stage", "ppo")
    before, after = stage(*words), stage(*words, "--micro-batch", "1", "--zero", "3")
    assert (after["settings"]["micro_batch"], after["settings"]["zero_stage"]) == (1, 3)
    assert after["peak"]["total"] != before["peak"]["total"]


def test_with_gpus_and_no_cluster_a_recipe_is_not_planned() -> None:
    found = stages("ppo_72b", "--gpus", "1", "--micro-batch", "1")
    assert {each["name"] for each in found} >= {"sft", "rm", "ppo"}
    with pytest.raises(DoesNotFit):
        said("ppo_72b", "--cluster", "v100_32", "dtype=float16")


def test_the_table_marks_the_peak_and_the_bar_is_as_long_as_ever() -> None:
    text = said("--model", HALF, "--method", "ppo")
    assert text.count("◀") == 1
    bar = next(line for line in text.splitlines() if line.startswith("█"))
    assert len(bar.split("  ")[0]) == 64
    for row in ("allocated", "reserved", "total", "weights", "optimizer"):
        assert any(line.startswith(row) for line in text.splitlines())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "nothing to estimate"),
        (["ppo_7b", "--model", HALF], "a recipe .* and a model"),
        (["--model", HALF, "--offload", "optimizer"], "under ZeRO only"),
        (["--model", HALF, "--offload", "all", "--zero", "2"], "under ZeRO 3 only"),
        (["--model", HALF, "--gpus", "12"], "do not divide"),
        (["--model", HALF, "--quantization", "nf4"], "only an adapter's base"),
        (["--model", HALF, "--method", "ppo", "--seq-len", "64", "--prompt-len", "64"], "leaves"),
        (["ppo_7b", "--gpus", "8", "--stage", "pp"], "no stage `pp`"),
        (["--model", HALF, "--optimizer", "adam"], "expected one of"),
        (["ppo_7b", "--gpus", "8", "--peft", "qlora"], "goes with `--model`"),
        (["--model", HALF, "--stage", "sft"], "of a recipe"),
        (["--model", HALF, "--prompt-len", "64"], "writes nothing"),
        (["--model", HALF, "--lora-r", "64"], "of an adapter"),
    ],
)
def test_what_contradicts_itself_is_refused(words: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        said(*words)


def test_a_trace_without_a_training_environment_says_so(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n"
    )
    python.chmod(0o755)
    profile = tmp_path / "c.yaml"
    text = (ROOT / "slurm" / "clusters" / "mixed.yaml").read_text()
    profile.write_text(f"{text}\npython: {python}\n")
    with pytest.raises(UsageError, match="has no training environment") as caught:
        said("--model", HALF, "--trace", "--cluster", str(profile))
    assert "python" in str(caught.value.hint)
    python.unlink()
    with pytest.raises(LauncherError, match="cannot be started"):
        said("--model", HALF, "--trace", "--cluster", str(profile))


def test_the_last_error_that_a_program_names_is_its_reason() -> None:
    words = (
        "Traceback:\n  here\nValueError: no such kernel\nSee the docs for\nworkaround examples.\n"
    )
    script = f"import sys; sys.stderr.write({words!r}); sys.exit(3)"
    with pytest.raises(CommandFailed, match=r"^ValueError: no such kernel$"):
        converse([sys.executable, "-c", script], "")
    script = "import sys; print(sys.stdin.read().upper())"
    assert converse([sys.executable, "-c", script], "words") == "WORDS\n"


def test_an_estimate_loads_no_training_stack_and_takes_a_fraction_of_a_second() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    launcher("estimate", "--model", "Qwen/Qwen2.5-72B", "--method", "ppo", "--gpus", "32",
             "--zero", "3", folder=ROOT)  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.8
