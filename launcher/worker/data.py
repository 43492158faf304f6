"""The stage's data set, from a file, a folder or the hub, with the columns its method needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.errors import UsageError
from launcher.plan.chats import PAIR, beside_chats, repeated
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Data, Part
from launcher.worker import mixture
from launcher.worker.context import Context

_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def training_set(context: Context, tokenizer: Any) -> Any:
    """A `datasets.Dataset`. Raises UsageError."""
    assert context.stage.data is not None
    data = context.stage.data
    rows = mixture.training_rows(data, context.stage.seed, _load)
    return _prepared(context, rows, tokenizer)


def evaluation_set(context: Context, tokenizer: Any) -> Any | None:
    """The held-out rows as a `datasets.Dataset`, or None where the recipe names none."""
    data = context.stage.data
    if data is None:
        return None
    if data.hold_out is not None:
        return _prepared(context, mixture.held_out(data, context.stage.seed, _load), tokenizer)
    if data.eval_path is None and data.eval_split is None:
        return None
    rows = mixture.kept(_load(data, data.eval_path or data.path, data.eval_split or "train"), data)
    return _prepared(context, rows, tokenizer)


def _load(data: Data | Part, path: str, split: str) -> Any:
    from accelerate import PartialState
    from datasets import load_dataset, load_from_disk

    place = Path(path)
    with PartialState().main_process_first():
        if place.suffix in _FORMATS:
            if not place.is_file():
                raise UsageError(f"there is no data file {path}", hint="correct data.path")
            return load_dataset(_FORMATS[place.suffix], data_files=path, split=split)
        if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            loaded = load_from_disk(path)
            return loaded[split] if (place / "dataset_dict.json").is_file() else loaded
        return load_dataset(path, data.name, split=split)


def _prepared(context: Context, rows: Any, tokenizer: Any) -> Any:
    data, method = context.stage.data, METHODS[context.stage.method]
    assert data is not None
    names = {
        theirs: ours
        for ours, theirs in data.columns.items()
        if theirs in rows.column_names and theirs != ours
    }
    # The recipe's word goes before a column that has the name already.
    taken = [ours for ours in names.values() if ours in rows.column_names]
    rows = rows.remove_columns(taken).rename_columns(names)
    if not any(set(needed) <= set(rows.column_names) for needed in method.columns):
        wanted = " or ".join(" + ".join(needed) for needed in method.columns)
        raise UsageError(
            f"{data.path} has the columns {', '.join(rows.column_names)}; "
            f"{method.name} needs {wanted}",
            hint="map them with data.columns",
        )
    if method.name == "sft":
        rows = mixture.messages(rows)
    rows = _without_idle_prompts(context, rows)
    if (data.as_chat or data.system_prompt is not None) and "prompt" in rows.column_names:
        rows = mixture.conversations(rows, data.system_prompt)
    if data.max_prompt_tokens is None or "prompt" not in rows.column_names:
        return rows
    return _without_long_prompts(rows, data.max_prompt_tokens, tokenizer)


def _without_idle_prompts(context: Context, rows: Any) -> Any:
    """`rows` without a prompt that says what the conversations beside it say too.

    Trainers would take its text for the row's prompt. Raises UsageError where it says other things.
    """
    data, columns = context.stage.data, set(rows.column_names)
    assert data is not None
    if "prompt" not in columns:
        return rows
    if context.stage.method == "sft" and "completion" not in columns:
        print("the rows hold what is trained on whole: their column prompt is left out")
        return rows.remove_columns(["prompt"])
    if not set(PAIR) <= columns or len(rows) == 0 or not beside_chats(rows[0]):
        return rows
    if all(repeated(row) for row in rows.select_columns(["prompt", *PAIR]) if beside_chats(row)):
        print("chosen and rejected hold the prompt as a message: the column prompt is left out")
        rows = rows.remove_columns(["prompt"])
        return rows if data.max_prompt_tokens is None else _divided(rows)
    raise UsageError(
        f"{data.path} has prompts of text, and chosen and rejected are messages without them",
        hint="make them alike, or leave the prompts out (data.keep: [chosen, rejected])",
    )


def _divided(rows: Any) -> Any:
    """Pairs of conversations with what both begin with as their prompt."""
    from trl import extract_prompt

    return rows.map(extract_prompt)


def _without_long_prompts(rows: Any, longest: int, tokenizer: Any) -> Any:
    def fits(row: dict[str, Any]) -> bool:
        prompt = row["prompt"]
        if isinstance(prompt, str):
            return len(tokenizer(prompt)["input_ids"]) <= longest
        text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= longest

    kept = rows.filter(fits)
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} of {len(rows)} prompts are longer than {longest} tokens")
    if len(kept) == 0:
        raise UsageError(
            f"every prompt is longer than {longest} tokens", hint="raise data.max_prompt_tokens"
        )
    return kept
