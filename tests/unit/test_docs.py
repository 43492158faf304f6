"""The commands in the documents are commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from launcher.cli.main import VERBS, cli
from launcher.cluster.reading import parse_profile
from launcher.cluster.types import Cluster
from tests.unit.command import ROOT, launcher

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
RUN_AS_THEY_ARE = ("validate", "plan", "estimate", "recipes", "schema", "list", "cluster list")
MINE = "name: my-cluster\n" + (ROOT / "slurm" / "clusters" / "mixed.yaml").read_text().replace(
    "name: mixed\n", "", 1
)


@dataclass(frozen=True)
class Line:
    """One command of a document."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def lines() -> list[Line]:
    """Every `launcher …` line of a fenced or indented block."""
    found = []
    for document in DOCUMENTS:
        fenced = False
        for line in document.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                fenced = not fenced
            elif re.match(r"\s*launcher " if fenced else r"    launcher ", line):
                words = tuple(shlex.split(line, comments=True)[1:])
                found.append(Line(document.name, words))
    return found


LINES = list(dict.fromkeys(lines()))


def test_the_documents_have_commands() -> None:
    assert {line.document for line in LINES} >= {"README.md", "commands.md", "clusters.md"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_and_its_options_are_known(line: Line) -> None:
    command: click.Command = cli
    words = list(line.words)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name}"
        command = found
    command.make_context(" ".join(line.words), words, resilient_parsing=False)


def runnable() -> list[tuple[str, ...]]:
    """The commands that change nothing here, and `submit` as a dry run; each once."""
    found = []
    for line in LINES:
        words = line.words
        if words[0] == "submit":
            kept = tuple(word for word in words if word not in ("--wait", "--yes"))
            found.append((*kept, "--dry-run"))
        elif words[0] in RUN_AS_THEY_ARE or " ".join(words[:2]) in RUN_AS_THEY_ARE:
            found.append(words)
    return list(dict.fromkeys(found))


FILE = re.compile(r"```yaml\n(# ([\w.-]+\.yaml)\n.*?)```", re.DOTALL)


def written() -> list[tuple[str, str]]:
    """The files that a document writes out: blocks that begin with their name."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    return [(found[2], found[1]) for text in texts for found in FILE.finditer(text)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents speak of."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "recipes").symlink_to(ROOT / "recipes")
    (desk / "my-cluster.yaml").write_text(MINE)
    (desk / "FOLDER" / "dpo").mkdir(parents=True)
    for name, text in written():
        (desk / name).write_text(text)
        (desk / "FOLDER" / "dpo" / name).write_text(text)
    launcher("plan", "sft_0.5b", "--cluster", "mixed", "-o", "plan.json", folder=desk)
    return desk


@pytest.mark.parametrize("words", runnable(), ids=" ".join)
def test_a_command_of_a_document_works(words: tuple[str, ...], desk: Path) -> None:
    env = {} if "--cluster" in words else {"LAUNCHER_CLUSTER": str(desk / "my-cluster.yaml")}
    ended = launcher(*words, folder=desk, env=env)
    assert ended.out
    assert not (desk / "runs").exists()


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`{verb}" not in text] == []


def test_the_profile_in_the_documents_is_one_and_every_key_is_explained() -> None:
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse_profile(block, "clusters.md").name == "lab"
    table = text.split("| key |")[1].split("\n## ")[0]
    missing = [key for key in Cluster.__dataclass_fields__ if f"`{key}" not in table]
    assert missing == ["name"]
