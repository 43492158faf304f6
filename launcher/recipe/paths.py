"""Models, data files and score files as a recipe names them → hub names and absolute paths."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from launcher.recipe import adapters
from launcher.recipe.document import Node
from launcher.recipe.functions import BadSource, names
from launcher.recipe.jinja import syntax_error
from launcher.recipe.problems import show, suggest
from launcher.recipe.values import HUB_NAME, REVISION

DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_FILES = (
    *DATA_SUFFIXES, ".txt", ".tsv", ".ndjson", ".arrow", ".xlsx", ".xml", ".yaml", ".yml", ".md",
    ".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".pkl", ".pt", ".npy",
)  # fmt: skip
"""What names of files end in, and hardly any name on the hub."""
_TEMPLATES = (".jinja", ".j2")
_PEEK = 2**20


class BadPath(ValueError):
    """Why a name or path cannot be used."""


def absolute(node: Node) -> Path:
    """The path that `node` states, from the folder of the file that states it. Raises BadPath."""
    try:
        path = Path(str(node.value)).expanduser()
    except RuntimeError:
        raise BadPath(f"{show(node.value)}: there is no such user") from None
    return Path(normpath(node.place.folder / path))


def _local(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def beside(node: Node) -> Path | None:
    """What lies at the path that `node` states, from the folder of the file that states it; None:
    nothing does."""
    path = absolute(node)
    return path if _exists(path) else None


def model(node: Node) -> str:
    """A hub name, with its revision unless that is `main`, or the absolute folder of a model that
    is there. Raises BadPath."""
    text = str(node.value)
    if not _local(text):
        name, at, revision = text.partition("@")
        if not re.fullmatch(HUB_NAME, name) or len(name) > 96 or "--" in name:
            raise BadPath(
                f"{show(text)} is no hub name (owner/name); a folder starts with / or ./, "
                "a stage with stage:"
            )
        if at and not re.fullmatch(REVISION, revision):
            raise BadPath(f"{show(text)} names no revision: a branch, tag or commit follows the @")
        return name if revision == "main" else text
    folder = absolute(node)
    if not _exists(folder):
        raise BadPath(f"there is no folder {show(str(folder))}")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise BadPath(adapters.in_folder(folder))
        raise BadPath(f"{show(str(folder))} holds no model: config.json is missing")
    found = pickled_weights(folder)
    if found is not None:
        raise BadPath(f"{show(str(folder))} {PICKLED.format(found)}")
    return str(folder)


def reward_model(node: Node) -> str:
    """As `model`; a folder whose classifier has one label. Raises BadPath."""
    found = model(node)
    try:
        config = json.loads((Path(found) / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return found
    labels = config.get("id2label") if isinstance(config, dict) else None
    if isinstance(labels, dict) and len(labels) > 1:
        text = f"a reward model of {len(labels)} labels; it needs one, the score"
        raise BadPath(f"{show(found)} holds {text}")
    return found


PICKLED = (
    "has its weights in a pickle ({}), which is never loaded; convert it where you trust it: load"
    " it there and `save_pretrained(FOLDER)`, which writes safetensors"
)


def pickled_weights(folder: Path) -> str | None:
    """The first file of weights in a model's folder that has none in safetensors; None where it
    has, or no weights at all. A pickle is a program: whoever wrote it decides what it does."""
    if any(folder.glob("*.safetensors")):
        return None
    kinds = ("pytorch_model*.bin", "adapter_model*.bin", "model*.bin", "*.pt", "*.pth", "*.ckpt")
    found = (path.name for kind in kinds for path in sorted(folder.glob(kind)))
    return next(found, None)


def tokenizer(node: Node) -> str:
    """A hub name, or the absolute folder of a tokenizer that is there. Raises BadPath."""
    text = str(node.value)
    if not _local(text):
        return model(node)
    folder = absolute(node)
    if not _exists(folder / "tokenizer_config.json"):
        raise BadPath(f"{show(str(folder))} holds no tokenizer: tokenizer_config.json is missing")
    return str(folder)


def template(node: Node) -> str:
    """The chat template's text, read where `node` names a .jinja file. Raises BadPath."""
    text = str(node.value)
    if "{" in text or not text.endswith(_TEMPLATES):
        if "{" not in text:
            raise BadPath(f"got {show(text)}, expected a template (Jinja) or a .jinja file")
        return _jinja(text, "the template")
    return _template_in(absolute(node))


def template_path(node: Node) -> str:
    """The absolute path of a .jinja file, or the tokenizer whose template is taken over, as TRL's
    `chat_template_path` names either. Raises BadPath."""
    text = str(node.value)
    if text.endswith(_TEMPLATES):
        path = absolute(node)
        _template_in(path)
        return str(path)
    found = tokenizer(node)
    if "@" in found and not _local(text):
        raise BadPath(f"{show(text)}: TRL takes no revision here; name a folder or a .jinja file")
    return found


def _template_in(path: Path) -> str:
    try:
        return _jinja(path.read_text(encoding="utf-8"), show(str(path)))
    except OSError as error:
        raise BadPath(f"{show(str(path))} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadPath(f"{show(str(path))} is not UTF-8") from None


def _jinja(text: str, named: str) -> str:
    wrong = syntax_error(text)
    if wrong is not None:
        raise BadPath(f"{named} is no Jinja, {wrong}; correct it there")
    return text


def data(node: Node) -> str:
    """A hub name, or the absolute path of data that is there. Raises BadPath."""
    text = str(node.value)
    if not _local(text) and not text.endswith(DATA_SUFFIXES):
        if text.lower().endswith(_FILES):
            raise BadPath(
                f"{show(text)} is taken for a hub name (owner/name), and ends as a file does;"
                f" give the rows as {', '.join(DATA_SUFFIXES)}"
            )
        if not re.fullmatch(HUB_NAME, text) or len(text) > 96:
            raise BadPath(
                f"{show(text)} is no hub name (owner/name); a folder starts with / or ./, "
                f"a file ends in {', '.join(DATA_SUFFIXES)}"
            )
        return text
    path = absolute(node)
    if not _exists(path):
        raise BadPath(f"there is no file {show(str(path))}")
    if not path.is_dir() and path.suffix not in DATA_SUFFIXES:
        raise BadPath(f"{show(str(path))} is none of {', '.join(DATA_SUFFIXES)}")
    broken = _broken(path)
    if broken is not None:
        raise BadPath(f"{show(str(path))} {broken}")
    return str(path)


def _broken(path: Path) -> str | None:
    """What keeps any row of a file from being read; None where nothing is known to."""
    if path.suffix not in (".json", ".jsonl", ".csv") or not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(_PEEK)
    except UnicodeDecodeError:
        return "is not UTF-8; write it anew as that"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not text.strip("[] \t\r\n"):
        return "holds no row; write what is to be read into it"
    if path.suffix == ".csv":
        return None
    rows = text.lstrip("[ \t\r\n")
    line = text.count("\n", 0, len(text) - len(rows)) + 1
    try:
        row, _ = json.JSONDecoder().raw_decode(rows)
    except json.JSONDecodeError as error:
        if len(text) == _PEEK and rows.startswith("{"):
            return None  # a row that goes on
        line += error.lineno - 1
        return f"is no JSON in line {line}: {error.msg}; give a JSON object a line"
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return f"has {show(row)} in line {line}, where a row is a JSON object with its columns"
    return None


def score(node: Node) -> str:
    """`/abs/file.py:function`, where the file defines it. Raises BadPath."""
    text, _, function = str(node.value).rpartition(":")
    if not text.endswith(".py") or not function.isidentifier():
        raise BadPath(f"got {show(node.value)}, expected file.py:function")
    path = Path(normpath(node.place.folder / text))
    if not _exists(path) or not path.is_file():
        raise BadPath(f"there is no file {show(str(path))}")
    try:
        known = names(path)
    except BadSource as error:
        raise BadPath(str(error)) from None
    if function not in known and not known.open:
        near = suggest(function, known.defined)
        raise BadPath(f"{path} defines no {function}{near}")
    return f"{path}:{function}"


def columns(path: str) -> tuple[str, ...] | None:
    """The columns of the first row of a json, jsonl or csv file; None where that does not tell."""
    row = first_row(path, header=True)
    return None if row is None else tuple(row)


def first_row(path: str, *, header: bool = False) -> dict[str, Any] | None:
    """The first row of a json, jsonl or csv file; None where that does not tell. With `header`, a
    csv file that has none but its header will do, and gives empty texts."""
    file = Path(path)
    if not file.is_absolute() or file.suffix not in (".json", ".jsonl", ".csv"):
        return None
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".csv":
                lines = csv.reader(stream)
                names = next(lines, [])
                values = next(lines, [] if header else None)
                padded = [*(values or ()), *("" for _ in names)]
                return None if values is None else dict(zip(names, padded, strict=False))
            text = stream.read(_PEEK).lstrip("[ \t\r\n")
        row, _ = json.JSONDecoder().raw_decode(text)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, RecursionError):
        return None
    return row if isinstance(row, dict) else None
