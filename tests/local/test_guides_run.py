"""What the guides say to run first is run, as they say it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.unit.command import LAUNCHER, ROOT, launcher

GUIDES = {"rlhf": ("sft", "rm", "ppo", "eval"), "dpo": ("dpo", "eval"), "grpo": ("grpo", "eval")}


def commands(guide: str) -> list[list[str]]:
    """The commands of the section that runs the tiny model."""
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8")
    section = text.split("\n## See it run first\n")[1].split("\n## ")[0]
    return [shlex.split(line)[1:] for line in re.findall(r"^    (launcher .*)", section, re.M)]


@pytest.mark.long
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guides_first_run_ends_complete_with_a_report(guide: str, tmp_path: Path) -> None:
    asked = commands(guide)
    assert asked[0][0] == "submit" and asked[-1] == ["report"]
    submit, *others = asked
    # As `launcher` below, with the minutes that trainings take.
    done = subprocess.run([LAUNCHER, *submit], cwd=tmp_path, capture_output=True, timeout=540)
    assert done.returncode == 0, done.stderr.decode()
    said = [launcher(*words, folder=tmp_path).out for words in others]
    status = launcher("status", "--json", folder=tmp_path)
    stages = json.loads(status.out)["data"]["stages"]
    assert [(each["name"], each["state"]) for each in stages] == [
        (name, "complete") for name in GUIDES[guide]
    ]
    # The evaluation's candidates stand in the report.
    assert "base" in said[-1] and GUIDES[guide][-2] in said[-1]
