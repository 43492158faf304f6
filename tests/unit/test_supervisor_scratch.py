"""The node's own disk takes the temporary files of a stage, where the profile names one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.worker.supervisor import scratch

OWN = f"launcher-{os.getuid()}"


def test_temporary_files_go_into_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "41").mkdir()
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    for _ in range(2):
        found = scratch(f"{tmp_path}/$SLURM_JOB_ID")
        assert found["TMPDIR"] == str(tmp_path / "41" / OWN)
        assert found["TRITON_CACHE_DIR"].startswith(found["TMPDIR"])
    assert (tmp_path / "41" / OWN).stat().st_mode & 0o777 == 0o700


def test_without_a_scratch_folder_the_usual_places_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scratch(None) == {}
    assert capsys.readouterr().out == ""
    assert scratch(str(tmp_path / "absent")) == {}
    assert "No such file" in capsys.readouterr().out


def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    another = os.getuid() + 1
    (tmp_path / f"launcher-{another}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: another)
    assert scratch(str(tmp_path)) == {}
    assert "another user's" in capsys.readouterr().out
