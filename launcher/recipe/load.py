"""A path or built-in name, and overrides → a `Recipe`, or every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.recipe import overrides as on_top
from launcher.recipe.check import check
from launcher.recipe.document import Node, parse, plain
from launcher.recipe.graph import in_order
from launcher.recipe.problems import Place, Problem, RecipeErrors, has_secret, join
from launcher.recipe.reading import Reading, where
from launcher.recipe.schema import RECIPE
from launcher.recipe.sources import read_source
from launcher.recipe.stages import stage as read_stage
from launcher.recipe.train_from import expand, is_config
from launcher.recipe.types import Recipe


def load_recipe(
    source: str,
    overrides: Sequence[str] = (),
    *,
    method: str | None = None,
    accelerate: str | None = None,
) -> Recipe:
    """The recipe at `source`: a path of a YAML file, or the name of one that ships (`ppo_7b`).

    Each override is `key.key=value`, its value read as in a file. Relative paths are those of the
    folder of the file that states them (of an override: the current folder), and come back
    absolute. Raises RecipeErrors with every problem that was found.

    With a `method`, `source` is a config written for `trl METHOD --config`, and `accelerate` may be
    the one that it was launched with; an override may then be a key of either.
    """
    if method is not None:
        from launcher.recipe.from_config import of_config

        return _load(of_config(source, method, accelerate, overrides))
    document = read_source(source)
    if is_config(document):
        text = "a config of TRL, not a recipe; say its method, as in `--method dpo`"
        raise RecipeErrors([Problem(Place(document.place.file, 0, 0, Path.cwd()), "", text)])
    return _load(on_top.apply(document, overrides))


def recipe_of(text: str, label: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a whole document that stands in no file; problems are said to be in `label`.

    Relative paths are the current folder's. Raises RecipeErrors.
    """
    document = parse(text.encode(), label, Path.cwd(), argument=True)
    return _load(on_top.apply(document, overrides))


def _load(document: Node) -> Recipe:
    problems: list[Problem] = []
    warnings: list[str] = []
    document = expand(document, problems, warnings)
    _strings(document, "", problems)
    checked = check(document, RECIPE, "", problems)
    if checked is None:
        raise RecipeErrors(_in_file_order(problems))
    reading = Reading(checked, problems, warnings)
    stages = {name: stage for name in reading.stages if (stage := read_stage(reading, name))}
    order, cycle = in_order({name: stage.needs for name, stage in stages.items()})
    if cycle:
        first = reading.stages[cycle[0]]
        text = f"stages wait for each other: {' → '.join(cycle)}"
        problems.append(Problem(first.key_place, f"stages.{cycle[0]}", text))
    if problems:
        raise RecipeErrors(_in_file_order(problems))
    name = checked.items["name"].value
    return Recipe(
        name=str(name),
        stages=tuple(stages[stage] for stage in order),
        resolved=_resolved(checked, reading.paths),
        shapes={key: plain(entry) for key, entry in _entries(checked, "shapes")},
        places=dict(_places(checked, "")),
        warnings=tuple(dict.fromkeys(reading.warnings)),
    )


def _places(node: Node, path: str) -> Iterator[tuple[str, str]]:
    for key, entry in node.items.items() if isinstance(node.value, dict) else ():
        below = join(path, key)
        yield below, str(entry.place)
        yield from _places(entry, below)


def _entries(node: Node, key: str) -> list[tuple[str, Node]]:
    """The entries of the mapping `key` that are not taken back."""
    given = node.get(key)
    return [pair for pair in given.items.items() if pair[1].value is not None] if given else []


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    files = list(dict.fromkeys(problem.place.file for problem in problems))
    return sorted(problems, key=lambda p: (files.index(p.place.file), p.place.line, p.place.column))


def _strings(node: Node, path: str, problems: list[Problem]) -> None:
    """Control characters and access tokens, wherever they stand."""
    if isinstance(node.value, str):
        free = ".train." in path or path.endswith(("chat_template", "system_prompt"))
        text = node.value.translate({9: None, 10: None}) if free else node.value
        if not text.isprintable():
            problems.append(Problem(node.place, path, "a control character; take it out"))
        if has_secret(text):
            way = "log in on the cluster instead (`hf auth login`)"
            problems.append(Problem(node.place, path, f"an access token; {way}"))
    elif isinstance(node.value, list):
        for index, item in enumerate(node.value):
            _strings(item, f"{path}[{index}]", problems)
    else:
        for key, entry in node.items.items():
            _strings(entry, join(path, key), problems)


def _resolved(node: Node, paths: Mapping[tuple[str, int, int, str], str]) -> Any:
    """Plain data, with every path as it was resolved."""
    if isinstance(node.value, dict):
        return {key: _resolved(entry, paths) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [_resolved(item, paths) for item in node.value]
    return paths.get(where(node), node.value) if isinstance(node.value, str) else node.value
