"""The one sink: data on standard output, as people or programs read it; the rest on stderr."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from launcher.errors import LauncherError

SCHEMA_VERSION = 1


def data(kind: str, value: Any) -> None:
    """Print `value` as one JSON document that names its kind and the schema's version."""
    import msgspec

    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": value}
    encoded = msgspec.json.encode(document, enc_hook=_plain)
    _print(msgspec.json.format(encoded, indent=2).decode())


def text(words: str) -> None:
    """Print data for people; what would steer a terminal is left out."""
    _print(_STEERING.sub("�", words))


def note(words: str) -> None:
    """Say something beside the data."""
    click.echo(words, err=True)


def _print(words: str) -> None:
    try:
        click.echo(words)
    except BrokenPipeError as error:
        # Click would end the program with 1; the reader has just seen enough.
        silence()
        raise click.exceptions.Exit(0) from error


def silence() -> None:
    """Let what is still buffered for standard output go nowhere, so that no one complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error(problem: LauncherError) -> None:
    """One sentence, and the way out under it."""
    click.echo(f"{_red('error:')} {printable(problem.message, lines=True)}", err=True)
    if problem.hint:
        click.echo(f"  hint: {printable(problem.hint)}", err=True)


def printable(words: str, *, lines: bool = False) -> str:
    """`words` without characters that would steer a terminal."""
    kept = "\n" if lines else ""
    return "".join(c if c.isprintable() or c in kept else "�" for c in words)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line; numbers (and what starts with one) stand at the right."""
    cells = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [
        bool(rows) and all(r[i] == "" or r[i][0].isdigit() or r[i][0] in "-+–" for r in rows)
        for i in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def duration(seconds: float | None) -> str:
    """`1:02:03`, `4:05`, or a dash."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def gib(size: float | None) -> str:
    """Bytes as GiB (2**30), or a dash."""
    return "–" if size is None else f"{size / 2**30:.1f} GiB"


# Control characters but tab and line feed, and those that turn the direction of writing.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _red(words: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    return words if plain else click.style(words, fg="red")


def _plain(value: Any) -> Any:
    if hasattr(value, "__fspath__"):
        return str(value)
    raise NotImplementedError(type(value))
