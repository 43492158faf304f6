"""A program of the user's as a stage: started without a shell, watched, and held to what it gives.

The tasks of a stage tell each other by files that their part is done: no process group is opened,
for the program may open its own.
"""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import IO

from launcher.errors import LauncherError, UsageError
from launcher.recipe.types import Command
from launcher.records import attempts, files
from launcher.worker import figures, guard
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.heartbeat import beat
from launcher.worker.stop import Stop

GRACE_S = 30.0
"""Between the word that the program shall stop, and its end."""
_LAST_LINES = 8
_KEPT = 65536
"""Characters of what it says that are kept for them."""
_POLL_S = 0.2
_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


class ProgramFailed(LauncherError):
    """The user's program ended with another exit code than 0."""


def run(context: Context, stop: Stop) -> Finished | None:
    """Run this task's part of the stage's program. None when it was told to stop before the end.

    Raises UsageError where the program cannot be started, or did not leave the model that it gives,
    ProgramFailed where it failed.
    """
    command = context.stage.command
    assert command is not None  # the recipe's checks see to it
    # A program that was begun is ended in order.
    stop.hold()
    began = time.time()
    done = _done(context, context.rank)
    done.unlink(missing_ok=True)
    if _starts(context, command):
        if not _run_to_its_end(context, command, stop):
            return None
        files.private_folder(done.parent)
        files.write_json(done, {"ended": time.time()})
    if not _others_done(context, command, stop):
        return None
    if not context.is_main:
        return Finished({}, (), {})
    roots = [context.paths.out]
    if command.gives is not None:
        _check_model(context)
        roots.append(context.paths.model)
    return Finished(
        metrics=figures.left_in(context.paths.out),
        roots=roots,
        seconds={"command": time.time() - began},
    )


def _run_to_its_end(context: Context, command: Command, stop: Stop) -> bool:
    """Whether the program ended by itself, with exit code 0; False: it was told to stop."""
    argv = words(context, command)
    program = shutil.which(argv[0], path=os.environ.get("PATH"))
    if program is None:
        raise UsageError(
            f"stages.{context.stage.name}.command: there is no program {argv[0]} on this node",
            hint="install it there, or name it with its path",
        )
    out = context.paths.out
    files.private_folder(out)
    context.enter("command")
    process = subprocess.Popen(
        [sys.executable, "-m", guard.__name__, str(GRACE_S), program, *argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=out,
        env=_environment(context, command),
    )
    assert process.stdin is not None and process.stdout is not None
    said = Said()
    reader = Thread(target=_pass_on, args=(process.stdout, said), daemon=True)
    reader.start()
    while process.poll() is None and not stop.told:
        time.sleep(_POLL_S)
    stopped = process.poll() is None
    # Its guard ends it, and whatever it left behind.
    process.stdin.close()
    code = process.wait()
    reader.join(timeout=GRACE_S)
    # The word to stop may have come to it too: Slurm sends it to every process of a step.
    if stopped or (code != 0 and stop.told):
        return False
    if code != 0:
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        last = said.last_lines()
        raise ProgramFailed(f"{argv[0]} {how}" + (f":\n{last}" if last else ""))
    return True


def words(context: Context, command: Command) -> list[str]:
    """The program and its arguments, with the folders in their places."""
    places = {label: context.folder_of(model) for label, model in command.inputs.items()}
    places["out"] = str(context.paths.out)
    if command.gives is not None:
        places["model"] = str(context.paths.model)
    return [word.format_map(places) for word in command.argv]


def _environment(context: Context, command: Command) -> dict[str, str]:
    """The task's variables. What is one of many keeps its rank, what is alone has none: many
    programs that find one wait for the others."""
    if command.run == "task":
        return dict(os.environ)
    kept = {name: value for name, value in os.environ.items() if name not in _RANK}
    if command.run == "node":
        nodes = context.stage_plan.allocation.nodes
        return {**kept, "NNODES": str(nodes), "NODE_RANK": str(context.rank // _per_node(context))}
    return {name: value for name, value in kept.items() if not name.startswith("MASTER_")}


class Said:
    """The end of what a program says."""

    def __init__(self) -> None:
        self._text = ""

    def hear(self, text: str) -> None:
        self._text = (self._text + text)[-_KEPT:]

    def last_lines(self) -> str:
        """As a terminal shows them: of a bar that is drawn over itself, the last state."""
        lines = self._text.strip().replace("\r\n", "\n").split("\n")
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines[-_LAST_LINES:])
        return "\n".join(shown).strip()


def _pass_on(stream: IO[bytes], said: Said) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    # Not line by line: a bar comes to the end of its line when all is done.
    while piece := os.read(stream.fileno(), 65536):
        text = decoder.decode(piece)
        sys.stdout.write(text)
        sys.stdout.flush()
        beat("command")
        said.hear(text)


def _per_node(context: Context) -> int:
    return context.stage_plan.allocation.tasks_per_node


def _starters(context: Context, command: Command) -> list[int]:
    """The ranks that start a copy of the program."""
    if command.run == "once":
        return [0]
    return list(range(0, context.world, 1 if command.run == "task" else _per_node(context)))


def _starts(context: Context, command: Command) -> bool:
    return context.rank in _starters(context, command)


def _others_done(context: Context, command: Command, stop: Stop) -> bool:
    """Wait for the other copies. One that fails ends the job, and this wait with it."""
    waiting = [_done(context, rank) for rank in _starters(context, command)]
    if not context.is_main:
        # A task that ends before the others would start Slurm's clock for those (`WaitTime`).
        waiting = [context.paths.complete]
    failed = attempts.failure_path(context.paths.attempts, context.start, 0)
    while not all(path.exists() for path in waiting):
        if not context.is_main and failed.exists():
            return True
        if stop.told:
            return False
        time.sleep(_POLL_S)
    return True


def _done(context: Context, rank: int) -> Path:
    return context.paths.attempts / f"{context.start}.rank{rank}.done"


def _check_model(context: Context) -> None:
    model, place = context.paths.model, f"stages.{context.stage.name}.gives"
    if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
        raise UsageError(
            f"{place}: the program left no config.json and *.safetensors in {model}",
            hint="write the model to {model}, with `save_pretrained` for one",
        )
