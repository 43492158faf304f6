"""Training with any of the trainers: resume, stop, evaluate, save."""

from __future__ import annotations

import json
import time
from typing import Any

from transformers import TrainerCallback

from launcher.recipe.methods import METHODS
from launcher.records import checkpoints, files
from launcher.worker import checkpoint, export, quantize, streams
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.heartbeat import BATCH, beat
from launcher.worker.measure import Meter, watch_tokens
from launcher.worker.stop import Stop
from launcher.worker.vllm import client

_PROGRESS_EVERY_S = 0.5


class _Report(TrainerCallback):
    """Writes progress and metrics as the training goes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loss: float | None = None
        self._reward: float | None = None
        self._written = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._context.enter("train", state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        if now - self._written >= _PROGRESS_EVERY_S or state.global_step >= state.max_steps:
            self._written = now
            self._context.report(
                "train", state.global_step, state.max_steps, self._loss, self._reward
            )

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not self._context.is_main or not logs:
            return
        self._loss = logs.get("loss", self._loss)
        self._reward = logs.get("reward", self._reward)
        figures = (f"{k} {v:.4g}" for k, v in logs.items() if isinstance(v, int | float))
        print(f"step {state.global_step}/{state.max_steps}: {', '.join(figures)}", flush=True)
        line = json.dumps({"step": state.global_step, "time": time.time(), **logs})
        path = self._context.paths.metrics
        streams.forgive(path.name, lambda: files.append_line(path, line))


class _AtStep(TrainerCallback):
    """Ends the training with a checkpoint at the first step where a rank was told to stop, and
    without one where a rank's loss is no number."""

    def __init__(self, context: Context, stop: Stop) -> None:
        self._losses = context.losses
        self._stop = stop
        # Completions that are sampled at an evaluation are of the random states that a checkpoint
        # holds: it must come to its end.
        self._whole = METHODS[context.stage.method].online
        self._trains = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stop.hold()
        self._trains = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trains = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self._stop.spoilt = self._losses.spoilt()
        told = self._stop.agreed(args.device)
        if self._stop.spoilt:
            raise self._losses.failure(state.global_step)
        if told and state.global_step < state.max_steps:
            _end(control)
        return control

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if logs and isinstance(logs.get("loss"), int | float):
            self._losses.logged(logs["loss"], state.global_step)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        beat(BATCH)
        # Where its result decides on what comes next, it must come to its end, too.
        decides = args.metric_for_best_model or args.lr_scheduler_type == "reduce_lr_on_plateau"
        if self._trains and not self._whole and not decides and self._stop.agreed(args.device):
            raise _EvaluationStopped

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._trains and self._stop.agreed(args.device) and state.global_step < state.max_steps:
            _end(control)
        return control


def _end(control: Any) -> None:
    """Save, and train no further."""
    control.should_save = True
    control.should_training_stop = True


class _EvaluationStopped(Exception):
    """The ranks have agreed to stop amid an evaluation."""


def _leave_evaluation_when_told(trainer: Any) -> None:
    inner = trainer.evaluate

    def evaluate(*words: Any, **options: Any) -> dict[str, float]:
        try:
            found: dict[str, float] = inner(*words, **options)
        except _EvaluationStopped:
            _end(trainer.control)
            return {}
        return found

    trainer.evaluate = evaluate


class _AtItsEnd(Exception):
    """There is no step left to train."""


class _NoStepTooMany(TrainerCallback):
    """Ends a training that resumes from its last step: transformers looks for the end only after a
    step, and would train one more."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise _AtItsEnd


class _Phases(TrainerCallback):
    """Tells the meter where the trainer is. It goes last, when the others have decided to save."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.step_begins()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.enter("optimizer step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.step_ends(_next(control.should_evaluate, control.should_save))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.enter(_next(False, control.should_save))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.enter("data")


def _next(evaluates: bool, saves: bool) -> str:
    """What a trainer does after a step: evaluate, save, or fetch data for the next."""
    return "evaluate" if evaluates else "save" if saves else "data"


def callbacks(context: Context, stop: Stop) -> list[Any]:
    measured = [_Phases(context.meter)] if context.meter is not None else []
    return [_Report(context), _AtStep(context, stop), _NoStepTooMany(), *measured]


def fit(context: Context, trainer: Any, stop: Stop) -> Finished | None:
    """Train to the end from the newest checkpoint. None when it was stopped before the end.

    Raises Leave where it is told to stop before the first step or, with all steps saved, while it
    is evaluated; Ends where a loss is no number.
    """
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    quantize.restore_masters(context, trainer.model)
    if context.meter is not None:
        watch_tokens(context.meter, trainer.model)
    if hasattr(trainer, "on_phase"):
        trainer.on_phase = context.measure
    context.losses.watch(trainer)
    _leave_evaluation_when_told(trainer)
    client.bound(trainer)
    began = time.time()
    try:
        trainer.train(resume_from_checkpoint=checkpoint.resume(context))
    except _AtItsEnd:
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            # What comes after the last step in there.
            trainer._load_best_model()
    if trainer.state.global_step < trainer.state.max_steps:
        return None
    trained = time.time()
    metrics = _numbers(trainer.state.log_history)
    if trainer.eval_dataset is not None:
        context.enter("evaluate")
        if checkpoints.newest_step(context.paths.checkpoints) >= trainer.state.max_steps:
            stop.leave_at_once()
        metrics.update(_numbers([trainer.evaluate()]))
        stop.hold()
    evaluated = time.time()
    context.enter("save")
    export.save(context, trainer)
    return Finished(
        metrics=metrics,
        roots=export.roots(context),
        seconds={
            "train": trained - began,
            "evaluate": evaluated - trained,
            "save": time.time() - evaluated,
        },
    )


def _numbers(logs: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of every figure that was logged."""
    return {
        name: float(value)
        for log in logs
        for name, value in log.items()
        if isinstance(value, int | float)
    }
