"""What a stage's result must keep to: `gate:`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from launcher.recipe.document import Node
from launcher.recipe.methods import Method
from launcher.recipe.reading import Reading
from launcher.recipe.types import Bound, Data

_TRAINED = ("train_loss", "loss", "entropy", "grad_norm", "num_tokens")
_HELD_OUT = "eval_"
_CLOSE = 0.85
"""How near a figure's name is to another's to be taken for it."""


def gate(
    reading: Reading,
    node: Node,
    at: str,
    method: Method,
    data: Data | None,
    candidates: Iterable[str],
) -> dict[str, Bound]:
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
        impossible = _impossible(figure, method, data, candidates)
        if impossible is not None:
            reading.wrong_key(entry, key, impossible)
        elif least is None and most is None:
            reading.wrong(entry, key, "give `min`, `max` or both")
        elif least is not None and most is not None and least > most:
            reading.wrong(entry, key, f"min {least:g} is above max {most:g}")
        else:
            found[figure] = Bound(least, most)
    return found


def _impossible(
    figure: str, method: Method, data: Data | None, candidates: Iterable[str]
) -> str | None:
    """Why no result of the stage has `figure`; None where it may have it."""
    if method.name == "evaluate":
        label, slash, _ = figure.partition("/")
        known = list(candidates)
        if slash and label in known:
            return None
        return f"an evaluation's figures are CANDIDATE/MEASURE; candidates: {', '.join(known)}"
    own = method.gates
    if not own:
        return None
    # What trainers log beside these goes by no list of ours (a user's rewards have names of their
    # own), so only what is nearly one of them is taken for a slip.
    trained = (*_TRAINED, *own)
    known = [*trained, *(f"{_HELD_OUT}{name}" for name in ("loss", *own))]
    if figure not in known:
        close = difflib.get_close_matches(figure, known, n=1, cutoff=_CLOSE)
        if close:
            return f"{method.name} has no such figure; did you mean `{close[0]}`?"
    held_out = data is not None and (data.eval_path or data.eval_split or data.hold_out)
    if figure.startswith(_HELD_OUT) and not held_out:
        return "there are no held-out rows; give `data.eval_path`, `eval_split` or `hold_out`"
    return None
