"""A row of the table of measured peaks, typed."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    "source",
    "url",
    "model",
    "method",
    "params_b",
    "peft",
    "precision",
    "optimizer",
    "zero_or_fsdp",
    "n_gpus",
    "micro_batch",
    "seq_len",
    "grad_ckpt",
    "flash_attn",
    "offload",
    "gpu",
    "peak_gib",
    "notes",
)


@dataclass(frozen=True)
class Row:
    """Columns as published; None where a cell is blank."""

    line: int
    """Of the file, the header being 1."""
    source: str
    url: str
    model: str
    method: str
    params_b: float | None
    """Parameters in 10⁹."""
    peft: str
    precision: str
    optimizer: str
    sharding: str
    """`zero_or_fsdp`: what divides the model over GPUs."""
    n_gpus: int | None
    micro_batch: int | None
    """Sequences of one forward pass on one GPU."""
    seq_len: int | None
    checkpointing: bool | None
    flash: str
    """`True`, `False`, `sdpa`, or blank."""
    offload: str
    gpu: str
    peak_gib: float | None
    """GiB. None: it ran out of memory, as `notes` say."""
    notes: str

    @property
    def out_of_memory(self) -> bool:
        return self.peak_gib is None and "OOM" in self.notes

    def note(self, key: str) -> str | None:
        """The value of `key=value` in the notes."""
        found = re.search(rf"(?:^|;)\s*{re.escape(key)}=([^;]*)", self.notes)
        return found[1].strip() if found else None

    @property
    def label(self) -> str:
        """For people: enough to find the row again."""
        parts = [self.model, self.peft, self.precision, self.sharding]
        sizes = f"{self.n_gpus or '?'} × {self.micro_batch or '?'} × {self.seq_len or '?'}"
        return " · ".join([*parts, sizes])


def load(path: Path) -> list[Row]:
    """The rows of a CSV file with `COLUMNS`. Raises ValueError, with the place, for others."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: columns are missing: {', '.join(missing)}")
        return [_row(number, cells, path) for number, cells in enumerate(reader, start=2)]


def _row(number: int, cells: dict[str, str], path: Path) -> Row:
    def text(name: str) -> str:
        return (cells[name] or "").strip()

    def real(name: str) -> float | None:
        if not text(name):
            return None
        try:
            return float(text(name))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {name} is {text(name)!r}, not a number") from error

    def whole(name: str) -> int | None:
        found = real(name)
        return None if found is None else int(found)

    flags = {"true": True, "false": False}
    return Row(
        line=number,
        source=text("source"),
        url=text("url"),
        model=text("model"),
        method=text("method"),
        params_b=real("params_b"),
        peft=text("peft"),
        precision=text("precision"),
        optimizer=text("optimizer"),
        sharding=text("zero_or_fsdp"),
        n_gpus=whole("n_gpus"),
        micro_batch=whole("micro_batch"),
        seq_len=whole("seq_len"),
        checkpointing=flags.get(text("grad_ckpt").lower()),
        flash=text("flash_attn"),
        offload=text("offload"),
        gpu=text("gpu"),
        peak_gib=real("peak_gib"),
        notes=text("notes"),
    )
