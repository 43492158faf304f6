"""The node's own disk takes the temporary files of a stage, where the profile names one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.worker.scratch import variables
from launcher.worker.supervision.job import environment
from tests.unit.running import ON_SLURM

OWN = f"launcher-{os.getuid()}"


def test_temporary_files_go_into_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "41").mkdir()
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    for _ in range(2):
        found = variables(f"{tmp_path}/$SLURM_JOB_ID")
        assert found["TMPDIR"] == str(tmp_path / "41" / OWN)
        assert found["TRITON_CACHE_DIR"].startswith(found["TMPDIR"])
    assert (tmp_path / "41" / OWN).stat().st_mode & 0o777 == 0o700


def test_without_a_scratch_folder_the_usual_places_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert variables(None) == {}
    assert capsys.readouterr().out == ""
    assert variables(str(tmp_path / "absent")) == {}
    assert "No such file" in capsys.readouterr().out


def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    another = os.getuid() + 1
    (tmp_path / f"launcher-{another}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: another)
    assert variables(str(tmp_path)) == {}
    assert "another user's" in capsys.readouterr().out


def test_the_trainer_gets_it_unless_profile_or_recipe_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/theirs")
    plan = replace(ON_SLURM, cluster=replace(ON_SLURM.cluster, scratch=str(tmp_path)))
    assert environment(ON_SLURM, "sft")["TMPDIR"] == "/theirs"
    assert environment(plan, "sft")["TMPDIR"] == str(tmp_path / OWN)

    sft = plan.stage("sft")
    named = replace(sft, stage=replace(sft.stage, env={"TMPDIR": "/theirs"}))
    found = environment(replace(plan, stages=(named, *plan.stages[1:])), "sft")
    assert found["TMPDIR"] == "/theirs"
    assert found["TRITON_CACHE_DIR"] == str(tmp_path / OWN / "triton")

    profile = replace(plan.cluster, env={"TMPDIR": "/theirs"})
    assert environment(replace(plan, cluster=profile), "sft")["TMPDIR"] == "/theirs"


def test_the_allocator_of_a_gpu_has_segments_that_grow_but_beside_vllm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "PYTORCH_CUDA_ALLOC_CONF"
    monkeypatch.delenv(name, raising=False)
    on_cuda = replace(ON_SLURM, cluster=replace(ON_SLURM.cluster, device="cuda"))
    assert environment(on_cuda, "sft")[name] == "expandable_segments:True"
    first = on_cuda.stages[0]
    with_vllm = replace(first, stage=replace(first.stage, train={"use_vllm": True}))
    assert name not in environment(replace(on_cuda, stages=(with_vllm,)), "sft")
    monkeypatch.setenv(name, "theirs")
    assert environment(on_cuda, "sft")[name] == "theirs"
