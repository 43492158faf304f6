"""What an evaluation found, from its JSON: the table of candidates and answers side by side."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
"""The contents of `evaluation.json` (`launcher.records.evaluation.EvaluationResult`)."""

LABEL_WIDTH = 12
"""Columns of the label before an answer; longer labels push their answer right."""


def table(document: Document) -> list[list[str]]:
    """The header and a row for each candidate, as text cells."""
    measures = _measures(document)
    baseline = document["baseline"]
    header = ["model"]
    for measure in measures:
        header.append(measure)
        if _compares(document):
            header += [f"Δ against {baseline}", f"win rate against {baseline}"]
    header += [
        "KL a token",
        "KL an answer",
        "tokens",
        f"repeated {document['ngram']}-grams",
        "ends",
    ]
    rows = [_row(candidate, measures, _compares(document)) for candidate in document["candidates"]]
    if any(candidate.get("perplexity") for candidate in document["candidates"]):
        header.append("perplexity")
        for cells, candidate in zip(rows, document["candidates"], strict=True):
            cells.append(_interval(candidate["perplexity"]))
    return [header, *rows]


def render_text(document: Document, width: int = 100) -> str:
    """Table and answers as plain text of at most `width` columns where words allow.

    The table is turned on its side, a column for each candidate: it stays narrow however many
    measures there are.
    """
    rows = [list(cells) for cells in zip(*table(document), strict=True)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        first, *others = [cell.ljust(size) for cell, size in zip(cells, widths, strict=True)]
        lines.append("  ".join([first, *others]).rstrip())
    lines.insert(1, "  ".join("─" * size for size in widths))
    parts = ["\n".join(lines), _note(document)]
    parts += [_sample_text(sample, width) for sample in document["samples"]]
    return "\n\n".join(parts)


def render_markdown(document: Document) -> str:
    """The same as GitHub's Markdown: one table of results and one for each prompt."""
    rows = [list(cells) for cells in zip(*table(document), strict=True)]
    parts = [_markdown_table(rows), _note(document)]
    for sample in document["samples"]:
        measures = _measures(document)
        cells = [["model", "answer", *measures]]
        cells += [
            [label, answer["text"].strip(), *(_measured(answer, m) for m in measures)]
            for label, answer in sample["answers"].items()
        ]
        quoted = "\n".join(f"> {_plain(line)}" for line in sample["prompt"].splitlines())
        parts += [quoted, _markdown_table(cells)]
    return "\n\n".join(parts) + "\n"


def _measures(document: Document) -> list[str]:
    return list(document["candidates"][0]["measures"])


def _compares(document: Document) -> bool:
    return len(document["candidates"]) > 1


def _measured(answer: Document, measure: str) -> str:
    value = answer["measures"].get(measure)
    return "" if value is None else _number(value)


def _row(candidate: Document, measures: Sequence[str], compares: bool) -> list[str]:
    cells = [candidate["label"]]
    for measure in measures:
        against = candidate["against_baseline"].get(measure)
        cells.append(_interval(candidate["measures"][measure]))
        if compares:
            cells.append("" if against is None else _interval(against["difference"], sign=True))
            cells.append("" if against is None else _percent(against["win_rate"]))
    token, sequence = candidate["kl_token"], candidate["kl_sequence"]
    return [
        *cells,
        "" if token is None else f"{token:.3f}",
        "" if sequence is None else _interval(sequence),
        f"{candidate['length']:.1f}",
        f"{candidate['repetition']:.1%}",
        f"{candidate['eos_rate']:.0%}",
    ]


def _number(value: float, sign: bool = False) -> str:
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _interval(interval: Document, sign: bool = False) -> str:
    mean, low, high = (_number(interval[key], sign) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _percent(interval: Document) -> str:
    return f"{interval['mean']:.0%} [{interval['low']:.0%}, {interval['high']:.0%}]"


def _note(document: Document) -> str:
    labels = {candidate["model"]: candidate["label"] for candidate in document["candidates"]}
    reference = labels.get(document["reference"], document["reference"])
    kl = "" if reference is None else f" KL is against {reference}, in nats."
    tie = "; a tie is half a win" if _compares(document) else ""
    if any(candidate.get("perplexity") for candidate in document["candidates"]):
        kl += " Perplexity is of the data's own completions."
    return (
        f"{document['prompts']} held-out prompts, seed {document['seed']}; in brackets the "
        f"{document['confidence']:.0%} interval{tie}.{kl}"
    )


def _sample_text(sample: Document, width: int) -> str:
    lines = textwrap.wrap(f"» {sample['prompt']}", width, subsequent_indent="  ")
    for label, answer in sample["answers"].items():
        scores = ", ".join(f"{name} {_number(value)}" for name, value in answer["measures"].items())
        words = " ".join(answer["text"].split()) or "(nothing)"
        lines += textwrap.wrap(
            f"{words} ({scores})" if scores else words,
            width,
            initial_indent=f"  {label}  ".ljust(LABEL_WIDTH),
            subsequent_indent=" " * LABEL_WIDTH,
        )
    return "\n".join(lines)


def _plain(words: str) -> str:
    """`words` of a model or its data, as text that no viewer takes for markup."""
    return html.escape(words, quote=False).replace("\x1b", "�")


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    escaped = [
        [_plain(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in rows
    ]
    rule = ["---"] * len(rows[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]])
