"""What judges completions: `rewards:` of a stage, each a function or a reward model."""

from __future__ import annotations

from launcher.recipe import paths
from launcher.recipe.document import Node, plain
from launcher.recipe.methods import Method
from launcher.recipe.problems import show, suggest
from launcher.recipe.reading import Reading
from launcher.recipe.references import reference
from launcher.recipe.types import Reward

LIBRARY = ("exact_match", "numeric_answer", "regex_format", "length", "repetition")
"""Functions of `launcher/worker/rewards/`."""


def rewards(reading: Reading, node: Node, at: str, method: Method) -> tuple[Reward, ...]:
    """The judges that the stage names, in the recipe's order."""
    given = node.get("rewards")
    if not method.judged:
        if given is not None:
            text = f"{method.name} takes no rewards; grpo, rloo and online_dpo do"
            reading.wrong_key(given, f"{at}.rewards", text)
        return ()
    entries = given.items if given else {}
    found = [
        reward
        for label, entry in entries.items()
        if entry.value is not None
        and (reward := _reward(reading, at, f"{at}.rewards.{label}", label, entry)) is not None
    ]
    if not entries and node.get("reward_model") is None and node.get("use") is None:
        text = f"{method.name} needs `rewards` (functions or models) or a `reward_model`"
        reading.missing(node, f"{at}.rewards", text)
    return tuple(found)


def _reward(reading: Reading, at: str, key: str, label: str, node: Node) -> Reward | None:
    if isinstance(node.value, str):
        return _of_text(reading, at, key, label, node)
    function, model = node.get("function"), node.get("model")
    if (function is None) == (model is None):
        text = "a reward is either a `function` or a `model`"
        reading.wrong_key(node, key, text)
        return None
    weight, options = node.get("weight"), node.get("options")
    share = float(str(weight.value)) if weight is not None else 1.0
    if model is not None:
        found = reference(reading, model, at, f"{key}.model", ("reward_model",))
        if options is not None:
            reading.wrong_key(options, f"{key}.options", "a reward model takes none")
        return None if found is None else Reward(label, model=found, weight=share)
    assert function is not None
    name = _function(reading, f"{key}.function", function)
    if name is None:
        return None
    if options is not None and name not in LIBRARY:
        text = "only functions of the library take options; write them into the file"
        reading.wrong_key(options, f"{key}.options", text)
        return None
    return Reward(label, name, weight=share, options=plain(options) if options else {})


def _of_text(reading: Reading, at: str, key: str, label: str, node: Node) -> Reward | None:
    """A judge that is one word: what it looks like says what it is."""
    text = str(node.value)
    if text in LIBRARY or ".py" in text or not ("/" in text or ":" in text):
        name = _function(reading, key, node)
        return None if name is None else Reward(label, name)
    model = reference(reading, node, at, key, ("reward_model",))
    return None if model is None else Reward(label, model=model)


def _function(reading: Reading, key: str, node: Node) -> str | None:
    text = str(node.value)
    if text in LIBRARY:
        return text
    if ".py" not in text:
        near = suggest(text, LIBRARY)
        reading.wrong(
            node, key, f"{show(text)} is neither file.py:function nor in the library{near}"
        )
        return None
    return reading.path(node, key, paths.score)
