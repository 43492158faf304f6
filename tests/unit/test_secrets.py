"""Tokens come from a 0600 file of the user's, reach the trainer alone, and are never repeated."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.worker import network, secrets, streams
from launcher.worker.supervision import job
from tests.unit.running import ON_THIS_MACHINE

TOKEN = "hf_" + "a1B2" * 8


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_names_and_values_are_read_and_the_names_are_told(tmp_path: Path) -> None:
    text = f"# mine\n\nHF_TOKEN={TOKEN}\nexport WANDB_API_KEY='k e y = 1'\n"
    assert secrets.variables(write(tmp_path / "s", text)) == {
        "HF_TOKEN": TOKEN,
        "WANDB_API_KEY": "k e y = 1",
        secrets.NAMES: "HF_TOKEN,WANDB_API_KEY",
    }


def test_the_default_file_may_be_missing_and_one_that_the_profile_names_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert secrets.variables(None) == {}
    with pytest.raises(UsageError, match="does not exist"):
        secrets.variables("~/mine.env")
    folder = tmp_path / ".config" / "launcher"
    folder.mkdir(parents=True)
    write(folder / "secrets.env", "A_TOKEN=abcdefgh\n")
    assert secrets.variables(None)["A_TOKEN"] == "abcdefgh"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o777])
def test_a_file_that_others_may_read_is_refused_with_the_command_that_mends_it(
    mode: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "s", f"HF_TOKEN={TOKEN}\n", mode)
    with pytest.raises(UsageError, match="others may read it") as refused:
        secrets.variables(path)
    assert refused.value.hint == f"chmod 600 {path}"
    assert TOKEN not in refused.value.message


def test_a_link_a_pipe_a_folder_and_anothers_file_are_refused(tmp_path: Path) -> None:
    plain = write(tmp_path / "s", f"HF_TOKEN={TOKEN}\n")
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(UsageError):
            secrets.variables(str(tmp_path / name))
    if os.geteuid() == 0:
        os.chown(plain, 4711, 4711)
        with pytest.raises(UsageError, match="belongs to another user"):
            secrets.variables(plain)


@pytest.mark.parametrize(
    "line", [TOKEN, f"LD_PRELOAD={TOKEN}", f"RANK={TOKEN}", f"A;B={TOKEN}", f"A={TOKEN}\x1b[31m"]
)
def test_a_line_that_is_no_secret_is_refused_without_its_value(line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2") as refused:
        secrets.variables(write(tmp_path / "s", f"# one\n{line}\n"))
    assert TOKEN not in refused.value.message


def test_the_trainers_variables_have_them_and_this_process_has_not(tmp_path: Path) -> None:
    path = write(tmp_path / "s", f"HF_TOKEN={TOKEN}\n")
    plan = replace(ON_THIS_MACHINE, cluster=replace(ON_THIS_MACHINE.cluster, secrets=path))
    assert job.environment(plan, "sft")["HF_TOKEN"] == TOKEN
    assert TOKEN not in os.environ.values()


def test_what_is_printed_loses_the_secrets_and_keeps_the_rest() -> None:
    hide = secrets.hider(
        {
            secrets.NAMES: "MINE",
            "MINE": "open-sesame",
            "HF_TOKEN": TOKEN,
            "LONGER_TOKEN": TOKEN + "more",
            "SHORT_TOKEN": "1",
            "PATH": "/usr/bin",
        }
    )
    text = f"at /usr/bin: open-sesame, {TOKEN}, {TOKEN}more, 1"
    assert hide(text) == "at /usr/bin: [MINE], [HF_TOKEN], [LONGER_TOKEN], 1"
    written = io.StringIO()
    streams.Guarded(written, hide).writelines(["a\n", text])
    assert written.getvalue() == f"a\n{hide(text)}"


def test_nodes_ask_nobody_unless_somebody_says_that_they_may() -> None:
    offline = network.variables({})
    assert offline["HF_HUB_OFFLINE"] == offline["HF_DATASETS_OFFLINE"] == "1"
    assert offline["WANDB_MODE"] == "offline"
    assert "HF_HUB_OFFLINE" not in network.variables({"HF_HUB_OFFLINE": "0"})
    assert network.variables({"HF_HUB_OFFLINE": "0"})["HF_DATASETS_OFFLINE"] == "0"
    assert "WANDB_MODE" not in network.variables({"WANDB_MODE": "online"})
    assert job.environment(ON_THIS_MACHINE, "sft")["TRANSFORMERS_OFFLINE"] == "1"
