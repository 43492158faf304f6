"""What every run of the tests begins with, and what it prints at its end."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

# The processes that tests start share what they compile, as a user's do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

COUNTED = {
    "tests/unit/test_bad_recipes.py::test_a_bad_recipe": "bad recipes refused",
    "tests/attacks/": "attacks refused",
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many bad recipes and attacks there were, and how many behaved as listed."""
    seen: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for begins, what in COUNTED.items():
                if isinstance(report, pytest.TestReport) and report.nodeid.startswith(begins):
                    seen[what] += 1
                    good[what] += outcome == "passed"
    for what in seen:
        terminalreporter.write_line(f"{good[what]} of {seen[what]} {what}")
