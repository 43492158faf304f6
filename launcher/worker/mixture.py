"""Rows of several data sets as one, rows kept from training, and prompts as conversations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.errors import UsageError
from launcher.plan.chats import as_messages, turns_of
from launcher.recipe.types import Data, Part

Load = Callable[[Data | Part, str, str], Any]
"""The rows of a data set, given its path and split."""


def training_rows(data: Data, seed: int, load: Load) -> Any:
    """A `datasets.Dataset` of what is trained on. Raises UsageError."""
    return _divided(data, seed, load)[0]


def held_out(data: Data, seed: int, load: Load) -> Any:
    """The rows that `hold_out` keeps from training. Raises UsageError."""
    return _divided(data, seed, load)[1]


def kept(rows: Any, part: Data | Part) -> Any:
    """`rows` without the columns that the recipe does not want. Raises UsageError."""
    if not part.keep:
        return rows
    missing = [column for column in part.keep if column not in rows.column_names]
    if missing:
        raise UsageError(
            f"{part.path} has no column {', '.join(missing)}; it has "
            + ", ".join(rows.column_names),
            hint="correct `keep`",
        )
    return rows.select_columns(list(part.keep))


def messages(rows: Any) -> Any:
    """`rows` with messages in the place of ShareGPT's turns, where the first row has such."""
    column = turns_of(rows[0]) if len(rows) else None
    if column is None:
        return rows

    def message(row: dict[str, Any]) -> dict[str, Any]:
        return {"messages": as_messages(row[column])}

    return rows.map(message, remove_columns=[column])


def conversations(rows: Any, system: str | None) -> Any:
    """`rows` whose prompts are messages: text is a user's, and `system` comes first."""

    def conversation(row: dict[str, Any]) -> dict[str, Any]:
        prompt = row["prompt"]
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if system is not None and (not turns or turns[0]["role"] != "system"):
            turns = [{"role": "system", "content": system}, *turns]
        return {"prompt": turns}

    # The column changes its type, which `map` allows only where the old one goes.
    return rows.map(conversation, remove_columns=["prompt"])


def _divided(data: Data, seed: int, load: Load) -> tuple[Any, Any]:
    """What is trained on, and what is held out (None without `hold_out`)."""
    rows = _mixed(data, seed, load)
    if data.hold_out is None:
        return rows, None
    size = data.hold_out if data.hold_out < 1 else int(data.hold_out)
    if size >= len(rows):
        raise UsageError(
            f"there are {len(rows)} rows, and data.hold_out keeps {size} of them from training",
            hint="lower data.hold_out",
        )
    both = rows.train_test_split(test_size=size, seed=seed)
    return both["train"], both["test"]


def _mixed(data: Data, seed: int, load: Load) -> Any:
    from datasets import concatenate_datasets

    sources: list[Data | Part] = [data, *data.also]
    parts = [_share(part, seed, load) for part in sources]
    if len(parts) == 1:
        return parts[0]
    common = [c for c in parts[0].column_names if all(c in part.column_names for part in parts)]
    if not common:
        raise UsageError(
            f"the data sets mixed with {data.path} have no column in common",
            hint="correct data.also",
        )
    try:
        joined = concatenate_datasets([part.select_columns(common) for part in parts])
    except ValueError as error:
        raise UsageError(
            f"the data sets mixed with {data.path} do not have the same kind of columns: {error}",
            hint="leave out the columns that differ with `keep`",
        ) from error
    return joined.shuffle(seed=seed)


def _share(part: Data | Part, seed: int, load: Load) -> Any:
    rows = kept(load(part, part.path, part.split), part)
    if part.share == 1:
        return rows
    return rows.shuffle(seed=seed).select(range(int(len(rows) * part.share)))
