"""What `docs/evaluation.md` says of evaluations holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from launcher.recipe.load import load_recipe
from launcher.recipe.types import Score
from launcher.worker.evaluate.generate import Completion
from launcher.worker.evaluate.score import function

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def test_its_recipe_loads_and_its_function_measures(tmp_path: Path) -> None:
    file = tmp_path / "scores.py"
    file.write_text(block("python"))
    for name in ("questions", "held_out"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (tmp_path / "r.yaml").write_text(block("yaml"))
    scores = load_recipe(str(tmp_path / "r.yaml")).stage("eval").scores
    assert scores["strict"] == Score("exact_match", {"after": "####"})
    rows: list[dict[str, Any]] = [
        {"prompt": "How?", "answer": "7"},
        {"prompt": [{"role": "user", "content": "How?"}]},
    ]
    written = [Completion([1], [2], text, ended=True) for text in ("Please wait.", "No.")]
    assert function("polite", scores["polite"], rows)(rows, written) == [1.0, 0.0]
