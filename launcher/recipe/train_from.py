"""`train_from:` of a stage: the configs that it names, as keys of the stage under its own."""

from __future__ import annotations

from dataclasses import replace

from launcher.recipe.document import Node, merge
from launcher.recipe.methods import METHODS
from launcher.recipe.problems import Problem, RecipeErrors, show
from launcher.recipe.sources import read_config
from launcher.recipe.trl_yaml.keys import TAKEN

KEY = "train_from"


def expand(document: Node, problems: list[Problem], warnings: list[str]) -> Node:
    """`document` with every `train_from` replaced by what it says."""
    stages = document.get("stages")
    if stages is None or not any(KEY in stage.items for stage in stages.items.values()):
        return document
    entries = {
        name: _stage(document, stage, f"stages.{name}", problems, warnings)
        for name, stage in stages.items.items()
    }
    size = 1 + sum(entry.size for entry in entries.values())
    both = {**document.items, "stages": replace(stages, value=entries, size=size)}
    return replace(document, value=both)


def is_config(document: Node) -> bool:
    """Whether `document` is a flat config of TRL rather than a recipe."""
    ours = ("launcher", "stages", "extends", "methods")
    flat = (*TAKEN, "output_dir", "learning_rate", "num_train_epochs")
    theirs = ("seed", "env", "dtype", "chat_template")
    return not any(key in document.items for key in ours) and any(
        key in document.items for key in flat if key not in theirs
    )


def _stage(
    document: Node, stage: Node, at: str, problems: list[Problem], warnings: list[str]
) -> Node:
    # Here, because few recipes have one.
    from launcher.recipe.trl_yaml import accelerate
    from launcher.recipe.trl_yaml.convert import Around, convert

    given = stage.items.get(KEY)
    if given is None:
        return stage
    own = replace(stage, value={key: node for key, node in stage.items.items() if key != KEY})
    method = own.get("method")
    if given.value is None or method is None or method.value not in METHODS:
        return own  # what is wrong with the method is said where methods are read
    wide = (document.get("methods") or own).get(str(method.value))
    stated = merge(wide, own) if wide is not None and wide.items else own
    config, launch = _read(given, f"{at}.{KEY}", problems)
    if launch is not None:
        warnings.append(accelerate.note(launch))
    if config is None:
        return own
    around = Around(
        accelerate.processes(launch) if launch is not None else None, _gpus(document, stated)
    )
    known = METHODS[str(method.value)]
    found = convert(config, known, own, at, around, problems, warnings)
    merged = merge(found, own)
    return replace(merged, place=stage.place, key_place=stage.key_place)


def _read(given: Node, at: str, problems: list[Problem]) -> tuple[Node | None, Node | None]:
    """The configs of TRL, the later on top of the earlier, and accelerate's."""
    from launcher.recipe.trl_yaml.accelerate import is_accelerate

    config: Node | None = None
    launch: Node | None = None
    for index, item in enumerate(given.value if isinstance(given.value, list) else [given]):
        key = f"{at}[{index}]" if isinstance(given.value, list) else at
        if not isinstance(item.value, (str, dict)):
            text = f"got {show(item.value)}, expected a file, or keys of a config"
            problems.append(Problem(item.place, key, text))
            continue
        try:
            node = read_config(item) if isinstance(item.value, str) else item
        except RecipeErrors as errors:
            problems += errors.problems
            continue
        if is_accelerate(node):
            launch = node
        elif "stages" in node.items or "launcher" in node.items:
            text = f"{show(item.value)} is a recipe; `extends` takes those"
            problems.append(Problem(item.place, key, text))
        else:
            config = node if config is None else merge(config, node)
    if config is None and launch is not None:
        text = "an accelerate config alone says nothing to train; name the config of TRL too"
        problems.append(Problem(given.place, at, text))
    return config, launch


def _gpus(document: Node, stated: Node) -> int:
    for block in (stated.get("resources"), document.get("resources")):
        gpus = block.get("gpus") if block is not None else None
        if gpus is not None and isinstance(gpus.value, int) and gpus.value > 0:
            return int(gpus.value)
    return 1
