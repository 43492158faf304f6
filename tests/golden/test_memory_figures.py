"""The figures in `docs/memory.md` are what the commands beside them print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli.estimate import command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory.md"
ROW = re.compile(r"(\| .*\| `launcher estimate (.*)` \| )[\d.]+ \|")


def peak(words: str) -> float:
    """GiB of the peak phase."""
    done = CliRunner().invoke(command, [*shlex.split(words), "--json"], catch_exceptions=False)
    (stage,) = json.loads(done.stdout)["data"]["stages"]
    return float(stage["peak"]["total"]) / 2**30


def test_the_figures_are_what_their_commands_print(request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text(encoding="utf-8")
    current, rows = ROW.subn(lambda found: f"{found[1]}{peak(found[2]):.1f} |", text)
    if request.config.getoption("--update-golden", default=False):
        PAGE.write_text(current, encoding="utf-8")
    assert rows == 10
    assert current == PAGE.read_text(encoding="utf-8"), "read the diff, then `make golden`"


@pytest.mark.parametrize(
    ("method", "gigabytes"), [("SFT", 16), ("DPO", 24), ("PPO", 40), ("GRPO", 24)]
)
def test_the_guides_figure_holds_for_the_settings_that_stand_first(
    method: str, gigabytes: int
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    words = re.search(rf"\| {method} {gigabytes} GB \| `launcher estimate (.*)` \|", text)
    assert words is not None
    assert 0.6 * gigabytes < peak(words[1]) * 2**30 / 10**9 < gigabytes
