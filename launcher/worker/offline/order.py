"""The order that judged answers are trained in: the seed shuffles them before TRL compares any."""

from __future__ import annotations

from typing import Any

from launcher.worker.context import Context


def drawn(context: Context, rows: Any) -> Any:
    """`rows` as single answers with a label, in an order of the seed's.

    KTOTrainer gives each row, once and for all, another answer of its micro-batch to measure the
    KL with, so that it cannot shuffle later; and of pairs it puts all good answers before the bad
    ones. A recipe that says `sequential` itself gets that.
    """
    train = context.stage.train
    if train.get("train_sampling_strategy") == "sequential":
        return rows
    from accelerate import PartialState
    from trl import extract_prompt, unpair_preference_dataset

    processes = train.get("dataset_num_proc")
    seed = train.get("data_seed")
    with PartialState().main_process_first():
        if {"chosen", "rejected"} <= set(rows.column_names):
            if "prompt" not in rows.column_names:
                rows = rows.map(extract_prompt, num_proc=processes)
            rows = unpair_preference_dataset(rows, num_proc=processes)
        return rows.shuffle(seed=context.stage.seed if seed is None else seed)
