"""Checkpoints of every trainer here: written aside and committed, and gone on from when whole.

`Committed` is mixed into each trainer class. Transformers writes a checkpoint in place, takes the
one with the highest number for the newest, and deletes the others file by file; here it writes into
a hidden folder, the ranks hash what is there, and rank 0 commits it (`launcher.records.commits`).
`resume` finds the newest that is whole. Both are collectives: every rank calls them.
"""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.plan.duration import KEPT, kept
from launcher.records import checkpoints, commits, ownership
from launcher.records.checkpoints import Checkpoint, Commit, File
from launcher.worker import hashing
from launcher.worker.context import Context, versions
from launcher.worker.distributed import by_main, wait_for_all

_STATE = "trainer_state.json"
_ARGUMENTS = "training_args.bin"
_TOKENS = "_total_train_tokens"
"""TRL's count of the tokens that have trained, which its trainers do not keep in a checkpoint."""


class Committed:
    """Goes before a `transformers.Trainer`. What a trainer adds to its checkpoints it writes in
    `save_beside`."""

    _staging: Path | None = None
    """Where a checkpoint is being written; None: none is."""
    _kept: int | None = KEPT

    def save_beside(self, folder: Path) -> None:
        """Write what belongs to the checkpoint in `folder`, and the trainer below does not."""

    def train(self: Any, *given: Any, **options: Any) -> Any:
        # The trainer below deletes by this number, in place.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._kept = kept(limit)
        try:
            return super().train(*given, **options)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit

    def _get_output_dir(self, trial: Any) -> str:
        if self._staging is not None:
            return str(self._staging)
        return str(super()._get_output_dir(trial))  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial))
        main = self.accelerator.is_main_process
        staging = by_main(lambda: commits.begin(folder))
        try:
            staged = self._write_aside(staging, model, trial)
            self._bring_in(folder, staged)
        except BaseException:
            # On a full disk there is room again for the words that tell of it. The other ranks
            # cannot know whether it is committed.
            if main:
                shutil.rmtree(staging, ignore_errors=True)
            raise
        if main and self._kept is not None:
            commits.prune(folder, self._kept, self.state.best_model_checkpoint)

    def _write_aside(self: Any, staging: Path, model: Any, trial: Any) -> Path:
        """Write all that belongs to the checkpoint below `staging`."""
        if self.args.include_num_input_tokens_seen == "no":
            # GRPO and what is made of it count there themselves.
            seen = max(self.state.num_input_tokens_seen, getattr(self, _TOKENS, 0))
            self.state.num_input_tokens_seen = seen
        self._staging = staging
        staged = checkpoints.path_of(staging, self.state.global_step)
        try:
            if self.accelerator.is_main_process:
                staged.mkdir()
            wait_for_all()
            self.save_beside(staged)
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._staging = None
        return staged

    def _bring_in(self: Any, folder: Path, staged: Path) -> None:
        """Make what was written in `staged` a checkpoint of `folder`."""
        main = self.accelerator.is_main_process
        if self.state.best_model_checkpoint == str(staged):
            self.state.best_model_checkpoint = str(folder / staged.name)
            if self.args.should_save:
                self.state.save_to_json(str(staged / _STATE))
        if main:
            # A pickle of this process's arguments, which nothing reads.
            (staged / _ARGUMENTS).unlink(missing_ok=True)
        wait_for_all()
        written = hashing.hashed(staged)
        if main:
            commits.commit(staged, self._commit(written))
        wait_for_all()

    def _commit(self: Any, written: tuple[File, ...]) -> Commit:
        zero_stage, offload = _sharding(self.accelerator)
        return Commit(
            schema_version=checkpoints.SCHEMA_VERSION,
            step=self.state.global_step,
            world=self.accelerator.num_processes,
            zero_stage=zero_stage,
            offload=offload,
            written=time.time(),
            files=written,
            trainer=type(self).__name__,
            versions=versions(),
        )

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and hasattr(self, _TOKENS):
            state = json.loads((Path(checkpoint) / _STATE).read_bytes())
            setattr(self, _TOKENS, state["num_input_tokens_seen"])

    def _load_best_model(self: Any) -> None:
        best = Path(self.state.best_model_checkpoint)
        why = hashing.examined(best)
        if why is not None:
            raise LauncherError(
                f"the best checkpoint, {best}, is damaged: {why}",
                hint="set `load_best_model_at_end: false` to take the last weights instead",
            )
        super()._load_best_model()  # type: ignore[misc]


def check(context: Context) -> None:
    """Raises LauncherError where the newest checkpoint is none for the plan in force.

    It reads no more than COMMIT.json, so that this is told before any model is loaded. Raises
    OSError.
    """
    there = checkpoints.committed(context.paths.checkpoints)
    if there:
        _refuse_unfit(context, there[-1])


def resume(context: Context) -> str | None:
    """The newest checkpoint that is whole; None: the training starts at its beginning.

    Those that are newer and damaged are set aside, and what dead writers left is removed. Raises
    LauncherError, on every rank, where others could have written the checkpoints, and where they
    are none for the plan in force; Ends (`disk`), on every rank, where the disk does not let one
    look: then all stay where they are.
    """
    folder = context.paths.checkpoints
    foreign = by_main(lambda: ownership.planted(context.run))
    if foreign is not None:
        raise LauncherError(
            f"checkpoints are not loaded from there: {foreign}",
            hint=ownership.way_out(context.run.root),
        )
    by_main(lambda: commits.tidy(folder))
    while True:
        numbered = by_main(lambda: checkpoints.numbered(folder))
        if not numbered:
            return None
        newest = numbered[-1]
        why = hashing.examined(newest)
        if why is None:
            break
        by_main(partial(checkpoints.put_aside, newest, why))
    _refuse_unfit(context, by_main(lambda: checkpoints.at(newest)))
    if context.is_main:
        print(f"goes on from {newest}", flush=True)
    return str(newest)


def _refuse_unfit(context: Context, found: Checkpoint) -> None:
    plan = context.stage_plan
    why = checkpoints.unfit(found, context.world, plan.zero_stage, plan.offload)
    if why is not None:
        raise LauncherError(
            why,
            hint=f"plan the stage as it was, or train it from its start: launcher resume"
            f" {context.run.root.name} --from {plan.name}",
        )


def _sharding(accelerator: Any) -> tuple[int, str]:
    """ZeRO stage and offload of this training, in the plan's words."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin is None:
        return 0, "none"
    zero = plugin.deepspeed_config["zero_optimization"]

    def offloads(what: str) -> bool:
        return (zero.get(what) or {}).get("device", "none") != "none"

    offload = "all" if offloads("offload_param") else "optimizer"
    return plugin.zero_stage, offload if offloads("offload_optimizer") else "none"
