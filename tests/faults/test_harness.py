"""The harness itself: what it calls a loss, and when a point is drawn again. Without a Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults, soak
from tests.faults import checks, harness, table
from tests.faults.case import Case
from tests.faults.every import every
from tests.faults.fault import Fault, Lost, Missed
from tests.faults.harness import DRAWS, Finding, Harness
from tests.faults.scenes import SFT
from tests.faults.site import HOOK, Site


@pytest.mark.parametrize(
    ("steps", "twice"),
    [((), 0), ((1, 2, 3), 0), ((1, 2, 3, 3, 4), 1), ((1, 2, 3, 4, 5, 2, 3, 4, 3, 4, 5), 4)],
)
def test_steps_done_twice_are_those_after_which_the_count_went_back(
    steps: Sequence[int], twice: int
) -> None:
    assert checks.redone(steps) == twice


def test_every_fault_has_five_points_or_says_why_it_hits_as_often_in_one() -> None:
    for fault in every().values():
        inside = {"preempted ten times", "a hang that comes each time"}
        assert fault.points >= 5 or any(words in fault.name for words in inside), fault.name


def _hooked(folder: Path, rule: dict[str, Any], program: str) -> subprocess.CompletedProcess[str]:
    """A Python that meets the rule, and says how far it came."""
    rules = folder / "rules.json"
    rules.write_text(json.dumps([{"module": "here", "mark": str(folder / "mark"), **rule}]))
    return subprocess.run(
        [sys.executable, "-c", f"{HOOK.read_text()}\n# here\n{program}"],
        env={"FAULT_HOOK": str(rules)},
        cwd=folder,
        capture_output=True,
        text=True,
    )


WRITES = """
for number in range(4):
    open(f"file{number}", "w").close()
    print(number, flush=True)
"""


def test_a_hook_kills_before_the_file_of_that_number_and_leaves_its_mark(tmp_path: Path) -> None:
    done = _hooked(tmp_path, {"events": ["open"], "path": "file", "nth": 3, "do": "kill"}, WRITES)
    assert (done.returncode, done.stdout) == (-9, "0\n1\n")
    assert json.loads((tmp_path / "mark.1").read_text())["paths"] == ["file2"]
    # The mark is taken: another process of the same job goes on.
    again = _hooked(tmp_path, {"events": ["open"], "path": "file", "nth": 3, "do": "kill"}, WRITES)
    assert (again.returncode, again.stdout) == (0, "0\n1\n2\n3\n")


def test_a_hook_lets_a_write_fail_and_leaves_reads_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    program = "print(open('file').read())\nopen('file', 'a')"
    done = _hooked(tmp_path, {"events": ["open"], "path": "file", "do": "errno EROFS"}, program)
    assert done.stdout == "there\n"
    assert "Read-only file system" in done.stderr


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A harness without a cluster."""

    @contextmanager
    def site(home: Path, cluster: str) -> Iterator[Site]:
        yield Site(home, home, {}, cluster)

    monkeypatch.setattr(harness, "site", site)
    made = Harness(tmp_path)
    monkeypatch.setattr(made, "_leave", lambda case, fault: None)
    return made


def _fault(inject: Any) -> Fault:
    return Fault("a fault", inject, SFT, "ranks", end="stays stopped")


def test_a_point_is_drawn_again_until_the_fault_is_proved_to_have_hit(bare: Harness) -> None:
    drawn: list[int] = []

    def inject(case: Case) -> None:
        drawn.append(case.draw_step())
        if len(drawn) < 3:
            raise Missed("too late")
        case.hit("dead")

    found = bare.find(_fault(inject), 0, seed=1)
    assert (found.survived, found.proof, len(drawn)) == (True, "dead", 3)
    drawn.clear()
    bare.find(_fault(inject), 0, seed=1)
    assert len(set(drawn)) > 1


def test_a_fault_that_never_hits_is_not_survived(bare: Harness) -> None:
    drawn: list[int] = []
    found = bare.find(_fault(lambda case: drawn.append(1)), 0, seed=1)
    assert (found.survived, found.hits, len(drawn)) == (False, 0, DRAWS)
    assert "nothing shows that it hit" in found.why


def test_a_loss_is_told_in_its_words_and_in_the_table(bare: Harness, tmp_path: Path) -> None:
    def inject(case: Case) -> None:
        case.hit("dead")
        raise Lost("two trainers at once")

    fault = _fault(inject)
    found = bare.find(fault, 2, seed=1)
    assert (found.survived, found.why) == (False, "two trainers at once")
    path = tmp_path / "faults.jsonl"
    table.add(path, found, "2026-01-31", {"launcher": "abc"})
    text = table.render(list(table.newest(table.read(path), 1).values()), {fault.name: fault})
    assert "| a fault | 0 of 1 | 1 |" in text
    assert "- a fault, point 2: two trainers at once" in text


def test_the_newest_finding_of_a_point_counts_and_a_torn_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    for survived in (False, True):
        row = Finding("a fault", 0, 1, survived, "", "dead", 1, 0, 1, 2, True, 9.0)
        table.add(path, row, "2026-01-31", {})
    with path.open("a") as handle:
        handle.write('{"fault": "a fa')
    (row_,) = table.newest(table.read(path), 1).values()
    assert row_["survived"] is True
    assert table.newest(table.read(path), 2) == {}


def test_a_table_states_all_versions_that_it_was_made_with() -> None:
    rows = [
        {"date": "2026-02-01", "versions": {"trl": "1.16.0", "launcher": "def"}},
        {"date": "2026-01-31", "versions": {"trl": "1.16.0", "launcher": "abc"}},
    ]
    assert table.under(rows) == "trl 1.16.0, launcher abc and def"


def test_the_page_has_what_the_last_soak_found() -> None:
    page = faults.PAGE.read_text(encoding="utf-8")
    found = page.split(soak.BEGIN)[1].split(soak.END)[0].strip()
    rows = [json.loads(line) for line in soak.RESULTS.read_text().splitlines()]
    assert found == soak.report(rows)


def test_a_soak_tells_what_survived_and_the_ratio_of_effective_time() -> None:
    hit = {"strike": "warned", "stage": "sft", "proof": "stopped", "back_s": 9.0}
    well = asdict(soak.Soaked(0, 1, [hit, hit], True, seconds=200, plain_seconds=100, jobs=3))
    lost = asdict(soak.Soaked(1, 1, [hit], why="two trainers at once", seconds=50))
    rows = [{**row, "date": "2026-01-31", "versions": {"trl": "1"}} for row in (well, lost)]
    text = soak.report(rows)
    assert "2 of 3 faults survived, in 2 chains" in text
    assert "| warned | 2 of 3 | 9 s |" in text
    assert "ETTR 0.50 with a fault every 100 s." in text
    assert "- chain 1: two trainers at once" in text
