"""What a stage's result must keep to: `gate:`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from launcher.recipe.document import Node
from launcher.recipe.methods import METHODS
from launcher.recipe.problems import suggest
from launcher.recipe.reading import Reading
from launcher.recipe.types import Bound, Stage

_TRAINED = ("train_loss", "loss", "entropy", "grad_norm", "num_tokens")
_HELD_OUT = "eval_"
_CLOSE = 0.85
"""How near a figure's name is to another's to be taken for it."""

_PAIRS = (
    *("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"),
    *("logits/chosen", "logits/rejected", "entropy", "num_tokens", "aux_loss"),
)
LOGGED: Mapping[str, tuple[str, ...]] = {
    "sft": ("mean_token_accuracy", "entropy", "num_tokens", "aux_loss"),
    "reward": ("accuracy", "margin", "mean_reward", "min_reward", "max_reward", "num_tokens"),
    "dpo": (*_PAIRS, "rewards/accuracies", "mean_token_accuracy"),
    "kto": (*_PAIRS, "kl"),
}
"""Method → all that its trainer logs of its own, where nothing of the user's can log more. A test
holds it to the installed TRL's sources."""
_OF_ALL = (
    *("loss", "grad_norm", "learning_rate", "epoch", "step", "total_flos"),
    *("num_input_tokens_seen", "runtime", "samples_per_second", "steps_per_second"),
    *("jit_compilation_time", "model_preparation_time"),
)
"""What transformers' trainer logs of every method."""
_MEASURES = ("length", "repetition", "eos_rate", "perplexity")
"""What an evaluation measures of every candidate, where the data lets it."""


def gate(reading: Reading, node: Node, at: str, stage: Stage) -> dict[str, Bound]:
    """Figure → its bounds. A figure that the stage cannot have is a problem."""
    given, found = node.get("gate"), {}
    for figure, entry in given.items.items() if given else ():
        if entry.value is None:
            continue
        least, most = (
            None if bound is None else float(str(bound.value))
            for bound in (entry.get("min"), entry.get("max"))
        )
        key = f"{at}.gate.{figure}"
        impossible = _impossible(figure, node, stage)
        if impossible is not None:
            reading.wrong_key(entry, key, impossible)
        elif least is None and most is None:
            reading.wrong(entry, key, "give `min`, `max` or both")
        elif least is not None and most is not None and least > most:
            reading.wrong(entry, key, f"min {least:g} is above max {most:g}")
        else:
            found[figure] = Bound(least, most)
    return found


def _impossible(figure: str, node: Node, stage: Stage) -> str | None:
    """Why no result of the stage has `figure`; None where it may have it."""
    if stage.method == "evaluate":
        return _of_evaluation(figure, node, stage)
    if not METHODS[stage.method].gates:
        return None
    unknown = _of_training(figure, node, stage)
    if unknown is not None:
        return unknown
    data = stage.data
    held_out = data is not None and (data.eval_path or data.eval_split or data.hold_out)
    if figure.startswith(_HELD_OUT) and not held_out:
        return "there are no held-out rows; give `data.eval_path`, `eval_split` or `hold_out`"
    return None


def _of_training(figure: str, node: Node, stage: Stage) -> str | None:
    method, name = METHODS[stage.method], figure.removeprefix(_HELD_OUT)
    logged = LOGGED.get(method.name)
    known = [*_TRAINED, *method.gates]
    known += [f"{_HELD_OUT}{each}" for each in ("loss", *method.gates)]
    if figure in known:
        return None
    close = difflib.get_close_matches(figure, known, n=1, cutoff=_CLOSE)
    if close:
        return f"{method.name} has no such figure; did you mean `{close[0]}`?"
    if logged is not None:
        # Figures of memory and of the whole training have names of their own.
        if name in (*logged, *_OF_ALL) or figure.startswith("train_") or "mem_" in figure:
            return None
        return f"{method.name} has no such figure{suggest(name, ('train_loss', *logged))}"
    # What else these trainers log goes by no list of ours: a user's rewards may log what they like
    # under names of their own.
    judge = re.fullmatch(r"rewards/([^/]+)/(mean|std)", name)
    if judge is None or not method.judged:
        return None
    labels = _labels(node, "rewards") + (["reward_model"] if node.get("reward_model") else [])
    if method.name == "online_dpo":
        return "online_dpo logs the rewards together: `reward`, `objective/scores`"
    if judge[1] not in labels:
        return f"no judge has this label{suggest(judge[1], labels)}"
    return None


def _of_evaluation(figure: str, node: Node, stage: Stage) -> str | None:
    label, slash, measure = figure.partition("/")
    known = list(stage.candidates)
    if not slash or label not in known:
        return f"an evaluation's figures are CANDIDATE/MEASURE; candidates: {', '.join(known)}"
    judged = [*(["reward"] if "reward_model" in stage.models else []), *_labels(node, "scores")]
    if measure in judged:
        return None
    if measure == "reward":
        return "there is no reward without a `reward_model`"
    if measure == "kl" and "reference" not in stage.models:
        return "there is no KL without a `reference`"
    baseline = stage.baseline or known[0]
    rates = [f"{each}/win_rate" for each in judged]
    if label == baseline and measure in rates:
        return f"{label} is the `baseline`, and wins nothing against itself"
    there = (*judged, *_MEASURES, "kl", *rates)
    return None if measure in there else f"there is no such measure{suggest(measure, there)}"


def _labels(node: Node, key: str) -> list[str]:
    given = node.get(key)
    return (
        [label for label, entry in given.items.items() if entry.value is not None] if given else []
    )
